"""The order in which rows are visited: a pure function of seed and index.

No iterator, no state: row i is record permutation(seed, epoch)(i), each epoch
in an order of its own, so a resumed run asks for the same numbers and any
process may load any row.
"""

import hashlib
from typing import Any

import numpy as np

from jumprelu import extras
from jumprelu.array_typing import Int32
from jumprelu.data.cache import TokenCache
from jumprelu.errors import UserError

with extras.imports():
  import grain


def _spread(seed: int) -> int:
  """Returns a hash of the seed, 32 bits."""
  # grain shuffles epoch e of seed s as epoch 0 of seed s + e: the runs of
  # neighbouring seeds would see the same epochs, one later.
  return int.from_bytes(hashlib.sha256(b'%d' % seed).digest()[:4], 'little')


class Loader:
  """Shuffled, endless, random access to the rows of a cache."""

  def __init__(self, cache: TokenCache, seed: int):
    if not len(cache):
      raise UserError(f'{cache.directory}: no rows to train on')
    self.cache = cache
    self.seed = seed
    # Shuffling the indices rather than the records lets a block's records be
    # read together: 20 us a row instead of 100.
    numbers = grain.MapDataset.range(len(cache))
    # Any: grain allows for elements that a filter took out; here is none.
    self._order: Any = numbers.shuffle(seed=_spread(seed)).repeat()

  def record_index(self, i: int) -> int:
    """Returns which record of the cache is row `i`."""
    return int(self._order[i])

  def row(self, i: int) -> Int32[np.ndarray, ' positions']:
    """Returns row `i` of the endless shuffled corpus."""
    return self.tokens_at([i])[0]

  def tokens_at(self, indices) -> Int32[np.ndarray, 'sequences positions']:
    """Returns the rows `indices` of the endless shuffled corpus."""
    return self.cache.tokens_at([self.record_index(int(i)) for i in indices])

  def block(
      self, block_index: int, sequences: int, *, rows: slice = slice(None)
  ) -> Int32[np.ndarray, 'sequences positions']:
    """Returns rows of block `block_index`, which has `sequences` of them.

    `rows` chooses some: a process loads those that its devices own.
    """
    start = block_index * sequences
    return self.tokens_at(range(start, start + sequences)[rows])
