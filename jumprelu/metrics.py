"""Statistics that merge: averages with standard errors, and moments.

Batches are summed on the device in float32 and int32; the host adds the sums
in float64 and int64, because a float32 counter stops at 2^24. Merged records
of the parts of a data set equal the record of the whole set.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Num

_Record = TypeVar('_Record')


def _wide(x: jax.typing.ArrayLike) -> np.ndarray:
  """Returns a host copy in the widest type of its kind."""
  x = np.asarray(x)
  return x.astype(np.float64 if x.dtype.kind == 'f' else np.int64)


def add(a: _Record, b: _Record) -> _Record:
  """Returns the sum of two records, leaf by leaf, on the host in 64 bits."""
  return jax.tree.map(lambda x, y: _wide(x) + _wide(y), a, b)


class Average(NamedTuple):
  """A mean per token, with the standard error over sequences.

  Sequence i has n_i tokens with the total t_i. The mean is the ratio
  R = sum t_i / sum n_i. Its variance is that of the ratio estimator over S
  sequences, S / (S - 1) * sum (t_i - R n_i)^2 / (sum n_i)^2, because tokens of
  one sequence depend on each other. With equal counts its root is the ordinary
  standard error of a mean.

  Fields may be arrays, for one average per element.
  """

  sequences: Num[np.ndarray, '*shape']
  count: Num[np.ndarray, '*shape']
  total: Num[np.ndarray, '*shape']
  count_squared: Num[np.ndarray, '*shape']
  total_squared: Num[np.ndarray, '*shape']
  total_by_count: Num[np.ndarray, '*shape']

  @classmethod
  def from_sums(
      cls,
      totals: Num[np.ndarray, ' sequences'],
      counts: Num[np.ndarray, ' sequences'],
  ) -> 'Average':
    """Returns the record of sequences; those without tokens are left out."""
    totals = np.asarray(totals, np.float64)
    counts = np.asarray(counts, np.int64)
    return cls(
        (counts > 0).sum(),
        counts.sum(),
        totals.sum(),
        (counts**2).sum(),
        (totals**2).sum(),
        (totals * counts).sum(),
    )

  def merge(self, other: 'Average') -> 'Average':
    """Returns the record of both sets of sequences together."""
    return add(self, other)

  @property
  def mean(self) -> Num[np.ndarray, '*shape']:
    """Returns the mean per token; NaN without tokens."""
    return ratio(self.total, self.count)

  @property
  def stderr(self) -> Num[np.ndarray, '*shape']:
    """Returns the standard error of the mean; NaN below two sequences."""
    mean = self.mean
    squares = (
        self.total_squared
        - 2 * mean * self.total_by_count
        + mean**2 * self.count_squared
    )
    variance = ratio(
        self.sequences * np.maximum(squares, 0), self.sequences - 1
    )
    stderr = ratio(np.sqrt(np.maximum(variance, 0)), self.count)
    return np.where(np.asarray(self.sequences) < 2, np.nan, stderr)


class Moments(NamedTuple):
  """The mean vector of rows and their scatter about it, in float64.

  The scatter is the sum of (x - mean)(x - mean)^T. Its trace is the
  denominator of the fraction of variance unexplained.
  """

  count: Num[np.ndarray, '']
  mean: Num[np.ndarray, ' model']
  scatter: Num[np.ndarray, 'model model']

  @classmethod
  def from_sums(
      cls, sums: 'ShiftedSums', shift: Float[Array | np.ndarray, ' model']
  ) -> 'Moments':
    """Returns the moments of the rows whose sums about `shift` these are.

    A shift near the mean avoids cancellation when the mean is far from 0.
    """
    count, first, second = jax.tree.map(_wide, sums)
    delta = first / max(count, 1)
    return cls(
        count,
        np.asarray(shift, np.float64) + delta,
        second - count * np.outer(delta, delta),
    )

  def merge(self, other: 'Moments') -> 'Moments':
    """Returns the moments of both sets of rows (Chan et al., 1979)."""
    count = self.count + other.count
    step = other.mean - self.mean
    share = other.count / max(count, 1)
    return Moments(
        count,
        self.mean + share * step,
        self.scatter
        + other.scatter
        + self.count * share * np.outer(step, step),
    )

  @property
  def sum_of_squares(self) -> float:
    """Returns the summed squared distance of the rows from their mean."""
    return float(np.trace(self.scatter))

  def about(
      self, center: Num[np.ndarray, ' model']
  ) -> Num[np.ndarray, 'model model']:
    """Returns the scatter about `center` instead of the mean."""
    step = self.mean - center
    return self.scatter + self.count * np.outer(step, step)


class ShiftedSums(NamedTuple):
  """The count, sum and sum of outer products of x - shift over a batch."""

  count: Num[Array, '']
  first: Num[Array, ' model']
  second: Num[Array, 'model model']

  @classmethod
  def from_batch(
      cls,
      x: Float[Array, '*batch model'],
      keep: Bool[Array, '*batch'],
      shift: Float[Array, ' model'],
  ) -> 'ShiftedSums':
    """Returns the sums over the kept rows, on the device in true float32."""
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    kept = keep.reshape(-1)
    rows = jnp.where(kept[:, None], rows - shift[None], 0)
    second = jnp.einsum('bm,bn->mn', rows, rows, precision='highest')
    return cls(kept.sum(), rows.sum(0), second)


def ratio(
    numerator: jax.typing.ArrayLike, denominator: jax.typing.ArrayLike
) -> np.ndarray:
  """Returns the quotient in float64, and NaN for a denominator of 0."""
  numerator = np.asarray(numerator, np.float64)
  denominator = np.asarray(denominator, np.float64)
  safe = np.where(denominator == 0, 1.0, denominator)
  return np.where(denominator == 0, np.nan, numerator / safe)
