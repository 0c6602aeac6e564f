"""The order of rows: a pure function of seed and index.

The loader is not an iterator and has no state. With n records in the cache, row
i belongs to epoch i // n and is record permutation(seed, epoch)[i % n]; each
epoch has a different permutation. A resumed run therefore reads the same rows,
and any process may load any row.
"""

from typing import Any

import numpy as np

from jumprelu import extras
from jumprelu.array_typing import Int32
from jumprelu.data import seeds
from jumprelu.data.cache import TokenCache
from jumprelu.errors import UserError

with extras.imports():
  import grain


class Loader:
  """Random access to the rows of a cache, shuffled and repeated endlessly."""

  def __init__(self, cache: TokenCache, seed: int):
    if not len(cache):
      raise UserError(f'{cache.directory}: no rows to train on')
    self.cache = cache
    self.seed = seed
    # Indices are shuffled instead of records, so that all records of a block
    # are read in one call: 20 us per row instead of 100.
    numbers = grain.MapDataset.range(len(cache))
    # Any, because grain's element type includes None for filtered elements and
    # nothing is filtered here.
    self._order: Any = numbers.shuffle(seed=seeds.spread(seed)).repeat()

  def reseeded(self, count: int) -> 'Loader':
    """Returns a loader with another order, for each count from 1."""
    return Loader(self.cache, seeds.folded(self.seed, count))

  def record_index(self, i: int) -> int:
    """Returns the index in the cache of row `i`."""
    return int(self._order[i])

  def row(self, i: int) -> Int32[np.ndarray, ' positions']:
    """Returns row `i` of the endless shuffled corpus."""
    return self.tokens_at([i])[0]

  def tokens_at(self, indices) -> Int32[np.ndarray, 'sequences positions']:
    """Returns rows of the endless shuffled corpus, in order of `indices`."""
    return self.cache.tokens_at([self.record_index(int(i)) for i in indices])

  def block(
      self, block_index: int, sequences: int, *, rows: slice = slice(None)
  ) -> Int32[np.ndarray, 'sequences positions']:
    """Returns rows of block `block_index`; every block has `sequences` rows.

    `rows` selects a part of the block, because a process loads only the rows of
    its own devices.
    """
    start = block_index * sequences
    return self.tokens_at(range(start, start + sequences)[rows])
