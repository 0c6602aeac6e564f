"""The first entries of each row of a ragged array, by a key.

A ragged array is flat; `starts` has the index where each row starts, and the
number of entries.
"""

import numpy as np

from jumprelu.array_typing import Int, Num


def first(
    starts: Int[np.ndarray, ' rows_and_end'],
    keys: Num[np.ndarray, ' entries'],
    count: int,
    *,
    ties: Int[np.ndarray, ' entries'] | None = None,
) -> Int[np.ndarray, ' chosen']:
  """Returns the indices of the entries with the smallest keys of each row.

  They are sorted by row, then by key.

  Args:
    starts: Where the rows start.
    keys: The keys.
    count: The largest number of entries of a row.
    ties: The order of equal keys, ascending; that of the array if None.
  """
  sizes = np.diff(starts)
  # A full sort of all rows would be slow. The largest of the minima of `count`
  # parts of a row is a bound that at least `count` of its entries do not exceed.
  parts = np.minimum(sizes, count)
  row = np.repeat(np.arange(len(sizes)), parts)
  if not len(row):
    return np.zeros(0, np.int64)
  first_part = np.cumsum(parts) - parts
  number = np.arange(len(row)) - first_part[row]
  edges = np.asarray(starts)[row] + number * sizes[row] // parts[row]
  minima = np.minimum.reduceat(keys, edges)
  filled = np.flatnonzero(sizes)
  bounds = np.maximum.reduceat(minima, first_part[filled])
  fits = keys <= np.repeat(bounds, sizes[filled])
  index = np.flatnonzero(fits)
  rows = np.searchsorted(starts, index, 'right') - 1
  order = (keys[index], rows)
  if ties is not None:
    order = (ties[index], *order)
  index = index[np.lexsort(order)]
  # The sort has left the rows in place.
  return index[rank(rows) < count]


def rank(rows: Int[np.ndarray, ' entries']) -> Int[np.ndarray, ' entries']:
  """Returns the index of each entry in its row; entries are sorted by row."""
  index = np.arange(len(rows))
  starts = np.ones(len(rows), bool)
  starts[1:] = rows[1:] != rows[:-1]
  return index - np.maximum.accumulate(np.where(starts, index, 0))


def starts_of(
    rows: Int[np.ndarray, ' entries'], size: int
) -> Int[np.ndarray, ' rows_and_end']:
  """Returns where each row's entries start; entries are sorted by row."""
  return np.searchsorted(rows, np.arange(size + 1))
