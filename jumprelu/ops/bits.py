"""Masks packed into bits, and a search for their set entries by rank.

Each word (uint32) packs 32 booleans of a mask. The running count of set bits
over the words locates the word with the k-th set bit, and five halvings of that
word locate the bit. Neither needs a sort or a scatter.

Ranks count from 0: the set bit with rank k has k set bits before it.
"""

import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Int32, UInt32

WORD = 32


def pack(mask: Bool[Array, 'size *rest']) -> UInt32[Array, 'words *rest']:
  """Returns the first axis packed into words.

  Bit i of word w is entry 32 w + i. Bits beyond the last entry are 0.
  """
  size, *rest = mask.shape
  padding = [(0, -size % WORD)] + [(0, 0)] * len(rest)
  return _words(jnp.pad(mask, padding).reshape(-1, WORD, *rest))


def running(
    words: UInt32[Array, '*shape'], *, axis: int = 0
) -> Int32[Array, '*shape']:
  """Returns the number of set bits in each word and all words before it."""
  return jnp.cumsum(_ones(words), axis=axis)


def find(
    words: UInt32[Array, 'words columns'],
    counts: Int32[Array, 'words columns'],
    ranks: Int32[Array, ' ranks'],
) -> Int32[Array, 'ranks columns']:
  """Returns the entries at which each column has its set bits of these ranks.

  Args:
    words: The result of `pack`.
    counts: The result of `running` for these words.
    ranks: The ranks, the same for all columns.

  Returns:
    Indices of entries. If the column has no set bit of that rank, the index is
    arbitrary but below 32 times the number of words.
  """
  word = jnp.sum(counts[None] <= ranks[:, None, None], axis=1, dtype=jnp.int32)
  word = jnp.minimum(word, len(words) - 1)
  return WORD * word + _within(words, counts, word, ranks[:, None], axis=0)


def pack_rows(
    mask: Bool[Array, 'rows columns'],
) -> tuple[UInt32[Array, 'rows words'], Int32[Array, 'rows words']]:
  """Returns the second axis packed into words, and `running` of these.

  Bit i of word w is entry i * n + w, where n is the number of words of a row.
  With this order, each of the 32 operations that compute the words of a row
  reads contiguous entries.
  """
  size = -(-mask.shape[1] // WORD)
  padding = size * WORD - mask.shape[1]
  lanes = jnp.pad(mask, [(0, 0), (0, padding)]).reshape(-1, WORD, size)
  words = _words(lanes)
  return words, running(words, axis=1)


def find_in_rows(
    words: UInt32[Array, 'rows words'],
    counts: Int32[Array, 'rows words'],
    ranks: Int32[Array, ' ranks'],
) -> Int32[Array, 'rows ranks']:
  """Returns the entries at which each row has its set bits of these ranks.

  Ranks follow the order of bits in the words of `pack_rows`, which differs from
  the order of entries.

  Args:
    words: The words of `pack_rows`.
    counts: Its running counts.
    ranks: The ranks, the same for all rows.

  Returns:
    Indices of entries. If the row has no set bit of that rank, the index is
    arbitrary but below 32 times the number of words.
  """
  # The binary search is unrolled, because each of its iterations does too
  # little work to pay for a loop.
  search = functools.partial(
      jnp.searchsorted, v=ranks, side='right', method='scan_unrolled'
  )
  size = words.shape[1]
  word = jnp.minimum(jax.vmap(search)(counts), size - 1).astype(jnp.int32)
  return size * _within(words, counts, word, ranks[None, :], axis=1) + word


def places(
    mask: Bool[Array, 'rows columns'], cap: int
) -> tuple[Int32[Array, 'rows cap'], Int32[Array, ' rows']]:
  """Returns the indices of up to `cap` set entries of each row, and the counts.

  A count is the number of all set entries of the row and may exceed `cap`. If
  it is below `cap`, the remaining indices are arbitrary but in bounds.
  """
  words, counts = pack_rows(mask)
  place = find_in_rows(words, counts, jnp.arange(cap, dtype=jnp.int32))
  return jnp.minimum(place, mask.shape[1] - 1), counts[:, -1]


def _words(
    lanes: Bool[Array, 'words lanes *rest'],
) -> UInt32[Array, 'words *rest']:
  """Returns words whose bit i is lane i.

  The loop over the 32 lanes is unrolled, because on a CPU XLA would compute a
  sum over lanes one element at a time.
  """
  words = jnp.zeros((lanes.shape[0], *lanes.shape[2:]), jnp.uint32)
  for lane in range(WORD):
    bit = jnp.uint32(1 << lane)
    words |= jnp.where(lanes[:, lane], bit, jnp.uint32(0))
  return words


def _ones(words: UInt32[Array, '*shape']) -> Int32[Array, '*shape']:
  return jax.lax.population_count(words).astype(jnp.int32)


def _within(
    words: UInt32[Array, 'a b'],
    counts: Int32[Array, 'a b'],
    word: Int32[Array, 'c d'],
    ranks: Int32[Array, 'e f'],
    *,
    axis: int,
) -> Int32[Array, 'c d']:
  """Returns the position (0 to 31) of each wanted bit within its word.

  Args:
    words: The words.
    counts: The result of `running` for these words.
    word: The index along `axis` of the word of each wanted bit.
    ranks: The rank along `axis` of each wanted bit; broadcast against `word`.
    axis: The axis of words.
  """
  gathered = jnp.take_along_axis(words, word, axis=axis)
  count = jnp.take_along_axis(counts, word, axis=axis)
  return _bit(gathered, ranks - (count - _ones(gathered)))


def _bit(
    words: UInt32[Array, '*shape'], rank: Int32[Array, '*shape']
) -> Int32[Array, '*shape']:
  """Returns the position of each word's set bit of this rank, by halving."""
  place = jnp.zeros_like(rank)
  for half in (16, 8, 4, 2, 1):
    low = words & jnp.uint32((1 << half) - 1)
    ones = _ones(low)
    above = rank >= ones
    rank = jnp.where(above, rank - ones, rank)
    words = jnp.where(above, words >> half, low)
    place += jnp.where(above, half, 0)
  return place
