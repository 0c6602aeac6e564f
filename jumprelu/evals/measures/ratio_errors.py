"""Ratios of sums, with standard errors over groups that depend on each other.

Tokens of one document, or of one sequence, are not independent draws. So what
is counted is summed a group, and the records hold the sums over groups and the
sums of their products, which merge. A score is a weighted sum of ratios of
linear forms of the sums s; with g its gradient and r_i the counts of group i,

  variance = S / (S - 1) * sum_i (g . r_i)^2,   S groups,

which is the ratio estimator's (`metrics.Average`) for a single ratio: a score
does not change when all sums are scaled, so g . s = 0 and nothing has to be
centred.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Num


class Ratio(NamedTuple):
  """weight * (numerator . sums) / (denominator . sums)."""

  numerator: Sequence[float]
  denominator: Sequence[float]
  weight: float = 1.0


class Counts(NamedTuple):
  """Sums over groups of a few counts, and of the products of each two."""

  groups: Num[np.ndarray, '']
  sums: Num[np.ndarray, ' counts']
  products: Num[np.ndarray, 'counts counts']

  @classmethod
  def from_groups(cls, rows: Num[np.ndarray, 'groups counts']) -> 'Counts':
    """Makes the record of some groups; those with nothing do not count."""
    rows = np.asarray(rows, np.float64)
    return cls(np.any(rows != 0, axis=1).sum(), rows.sum(0), rows.T @ rows)

  def merge(self, other: 'Counts') -> 'Counts':
    """Returns the record of both lots of groups."""
    return metrics.add(self, other)

  def estimate(self, *ratios: Ratio) -> tuple[float, float]:
    """Returns the sum of the ratios and its standard error.

    NaN where a denominator is 0; the error is NaN for less than two groups.
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
