"""Ratios of sums, with standard errors over groups of dependent tokens.

Tokens of one document, or of one sequence, are not independent. Counts are
therefore summed within each group. A record has the sums over groups of the
counts and of their products, and records merge. A score is a weighted sum of
ratios of linear forms of the sums s. With the score's gradient g and the counts
r_i of group i,

  variance = S / (S - 1) * sum_i (g . r_i)^2,   S groups,

which for a single ratio is the variance of the ratio estimator
(`metrics.Average`). The r_i need not be centred, because a score does not
change if all sums are scaled, so that g . s = 0.
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
