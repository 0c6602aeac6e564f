"""Ratios of sums, with standard errors over groups of dependent tokens.

Tokens of one document, or of one sequence, are not independent. They form a
group, and the vector r_i has the counts of group i. A mergeable record
(`Counts`) has the sum s of the r_i, and the sum of their outer products. A
score is a weighted sum of ratios (u . s) / (v . s). With S groups, and g the
gradient of the score with respect to s, its variance is

  variance = S / (S - 1) * sum_i (g . r_i)^2.

For a single ratio this is the variance of the ratio estimator
(`metrics.Average`). The r_i need not be centred, because g . s = 0: a score
does not change if all counts are multiplied by a factor.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Num


class Ratio(NamedTuple):
  """The ratio weight * (numerator . sums) / (denominator . sums)."""

  numerator: Sequence[float]
  denominator: Sequence[float]
  weight: float = 1.0


class Counts(NamedTuple):
  """Sums over groups of counts, and of the products of pairs of counts."""

  groups: Num[np.ndarray, '']
  sums: Num[np.ndarray, ' counts']
  products: Num[np.ndarray, 'counts counts']

  @classmethod
  def from_groups(cls, rows: Num[np.ndarray, 'groups counts']) -> 'Counts':
    """Returns the record of groups; groups with only zeros are not counted."""
    rows = np.asarray(rows, np.float64)
    return cls(np.any(rows != 0, axis=1).sum(), rows.sum(0), rows.T @ rows)

  def merge(self, other: 'Counts') -> 'Counts':
    """Returns the record of both sets of groups."""
    return metrics.add(self, other)

  def estimate(self, *ratios: Ratio) -> tuple[float, float]:
    """Returns the sum of the ratios and its standard error.

    Both are NaN if a denominator is 0; the error is NaN for fewer than two
    groups.
    """
    value, gradient = 0.0, np.zeros(len(self.sums))
    for numerator, denominator, weight in ratios:
      up, down = np.asarray(numerator), np.asarray(denominator)
      bottom = down @ self.sums
      part = metrics.ratio(up @ self.sums, bottom)
      value += weight * part
      gradient += weight * metrics.ratio(up - part * down, bottom)
    if self.groups < 2:
      return float(value), float('nan')
    variance = max(gradient @ self.products @ gradient, 0)
    factor = self.groups / (self.groups - 1)
    return float(value), float(np.sqrt(factor * variance))
