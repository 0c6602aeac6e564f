"""Statistics that merge: averages with standard errors, and moments.

Batches are summed on the device in float32 and int32; the host adds the sums
in float64 and int64, because a float32 counter stops at 2^24. The records of
the parts of a data set, merged, equal the record of the whole set up to
rounding.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Num

_Record = TypeVar('_Record')


def _wide(x: jax.typing.ArrayLike) -> np.ndarray:
  """Returns a host copy: floats as float64, other numbers as int64."""
  x = np.asarray(x)
  return x.astype(np.float64 if x.dtype.kind == 'f' else np.int64)


def add(a: _Record, b: _Record) -> _Record:
  """Returns the sum of two records, field by field, in 64 bits on the host."""
  return jax.tree.map(lambda x, y: _wide(x) + _wide(y), a, b)


class Average(NamedTuple):
  """A mean per token, with the standard error over sequences.

  Sequence i has n_i tokens, whose values sum to t_i. The mean is the ratio
  R = sum t_i / sum n_i. Because tokens of one sequence depend on each other,
  the variance of R is that of a ratio estimator over S sequences,
  S / (S - 1) * sum (t_i - R n_i)^2 / (sum n_i)^2. With equal n_i its root is
  the ordinary standard error of the mean over sequences.

  Fields may be arrays, with one average per element.
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
    """Returns the record of the sequences that have tokens.

    Args:
      totals: The sum over each sequence's tokens.
      counts: The number of each sequence's tokens.
    """
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

  @classmethod
  def empty(cls) -> 'Average':
    """Returns the record of no sequence."""
    return cls.from_sums(np.zeros(0), np.zeros(0, np.int64))

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
    """Returns the moments of rows from the sums of x - shift over the rows.

    A shift near the mean avoids cancellation when the mean is far from 0.
    """
    count, first, second = jax.tree.map(_wide, sums)
    delta = first / max(count, 1)
    return cls(
        count,
        np.asarray(shift, np.float64) + delta,
        second - count * np.outer(delta, delta),
    )

  @classmethod
  def empty(cls, size: int) -> 'Moments':
    """Returns the moments of no row of this size."""
    count: Any = np.int64(0)
    return cls(count, np.zeros(size), np.zeros((size, size)))

  def merge(self, other: 'Moments') -> 'Moments':
    """Returns the moments of both sets of rows together (Chan et al., 1979)."""
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
  """Sums over the kept rows x of a batch, all about a fixed vector `shift`.

  `count` is the number of rows, `first` the sum of x - shift, and `second` the
  sum of (x - shift)(x - shift)^T.
  """

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
    """Returns the sums over the rows with `keep`, on the device.

    Products are in float32, not in the faster formats of TPUs and GPUs.
    """
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
