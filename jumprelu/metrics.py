"""Statistics that merge, and the text they are shown as.

Batches are summed on the device in float32 and int32; the host adds the sums
up in float64 and int64, because float32 counters stop at 2^24. Merging any
split of the data gives what the whole gives.
"""

from collections.abc import Iterable, Iterator, Sequence
import math
import sys
import time
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Num

_Record = TypeVar('_Record')


def _wide(x: Any) -> np.ndarray:
  """Returns a host copy in the widest type of its kind."""
  x = np.asarray(x)
  return x.astype(np.float64 if x.dtype.kind == 'f' else np.int64)


def add(a: _Record, b: _Record) -> _Record:
  """Adds two records of sums, leaf by leaf, on the host in 64 bits."""
  return jax.tree.map(lambda x, y: _wide(x) + _wide(y), a, b)


class Average(NamedTuple):
  """A mean per token, with the standard error over sequences.

  Sequences have token counts n_i and totals t_i. The mean is the ratio
  R = sum t_i / sum n_i, and because tokens of one sequence depend on each
  other its variance is that of the ratio estimator over S sequences:
  S / (S - 1) * sum (t_i - R n_i)^2 / (sum n_i)^2. With equal counts that is
  the ordinary standard error of a mean.

  Fields may be arrays: of averages that are taken element by element.
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
    """Makes the record of some sequences; those without tokens do not count."""
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
    """Returns the record of both lots of sequences."""
    return add(self, other)

  @property
  def mean(self) -> Num[np.ndarray, '*shape']:
    """Returns the mean per token; NaN without tokens."""
    return ratio(self.total, self.count)

  @property
  def stderr(self) -> Num[np.ndarray, '*shape']:
    """Returns the standard error of the mean; NaN for less than two."""
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
  """The mean vector of some rows and their scatter about it, in float64.

  The scatter is the sum of (x - mean)(x - mean)^T; its trace is the sum of
  squares that a fraction of variance unexplained divides by.
  """

  count: Num[np.ndarray, '']
  mean: Num[np.ndarray, ' model']
  scatter: Num[np.ndarray, 'model model']

  @classmethod
  def from_sums(cls, sums: 'ShiftedSums', shift: Any) -> 'Moments':
    """Finishes sums that were taken about `shift`.

    With a shift near the mean nothing cancels, however far from 0 that is.
    """
    count, first, second = jax.tree.map(_wide, sums)
    delta = first / max(count, 1)
    return cls(
        count,
        np.asarray(shift, np.float64) + delta,
        second - count * np.outer(delta, delta),
    )

  def merge(self, other: 'Moments') -> 'Moments':
    """Returns the moments of both lots of rows (Chan et al., 1979)."""
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
  """Count, sum and sum of outer products of x - shift, over one batch."""

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
    """Sums the kept rows on the device, in true float32."""
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    kept = keep.reshape(-1)
    rows = jnp.where(kept[:, None], rows - shift[None], 0)
    second = jnp.einsum('bm,bn->mn', rows, rows, precision='highest')
    return cls(kept.sum(), rows.sum(0), second)


def ratio(numerator: Any, denominator: Any) -> np.ndarray:
  """Divides in float64; NaN, not an error, where the denominator is 0."""
  numerator = np.asarray(numerator, np.float64)
  denominator = np.asarray(denominator, np.float64)
  safe = np.where(denominator == 0, 1.0, denominator)
  return np.where(denominator == 0, np.nan, numerator / safe)


def format_number(value: Any) -> str:
  """Formats a table's cell: 4 digits for floats, '-' for what is undefined."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return '-'
  if isinstance(value, float):
    return f'{value:.4g}'
  return str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Lays out rows in aligned columns: text to the left, numbers to the right."""
  cells = [[format_number(cell) for cell in row] for row in rows]
  widths = [
      max(len(line[i]) for line in [list(header), *cells])
      for i in range(len(header))
  ]
  text = [
      bool(rows) and all(isinstance(row[i], str) for row in rows)
      for i in range(len(header))
  ]

  def line(row):
    return '  '.join(
        cell.ljust(width) if left else cell.rjust(width)
        for cell, width, left in zip(row, widths, text, strict=True)
    ).rstrip()

  return '\n'.join([line(header), *map(line, cells)])


class Progress:
  """Says how far a long loop is, once it has run for ten seconds."""

  def __init__(self, name: str, total: int, *, quiet: bool = False):
    self._name, self._total, self._quiet = name, total, quiet
    self._start = self._said = time.monotonic()

  def over(self, items: Iterable[Any]) -> Iterator[Any]:
    """Yields the items, telling the share done and the time left."""
    for done, item in enumerate(items):
      self.tell(done)
      yield item

  def tell(self, done: int) -> None:
    """Prints a line if the last one is ten seconds old."""
    now = time.monotonic()
    if self._quiet or not done or now - self._said < 10:
      return
    self._said = now
    left = (now - self._start) * (self._total - done) / done
    print(
        f'{self._name}: {done / self._total:.0%}, {left:.0f} s left',
        file=sys.stderr,
        flush=True,
    )
