"""Sets as bits: which entries of a mask are set, without sorting or scattering.

Thirty-two booleans make one word. Running counts of set bits show which word
has the k-th set bit, and five halvings find the bit within that word.
"""

import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Int32, UInt32

WORD = 32


def pack(mask: Bool[Array, 'size *rest']) -> UInt32[Array, 'words *rest']:
  """Returns words of the first axis: bit i of word w is entry 32 w + i."""
  size, *rest = mask.shape
  padding = [(0, -size % WORD)] + [(0, 0)] * len(rest)
  return _words(jnp.pad(mask, padding).reshape(-1, WORD, *rest))


def running(
    words: UInt32[Array, '*shape'], *, axis: int = 0
) -> Int32[Array, '*shape']:
  """Returns the number of set bits up to and including each word."""
  return jnp.cumsum(_ones(words), axis=axis)


def find(
    words: UInt32[Array, 'words columns'],
    counts: Int32[Array, 'words columns'],
    ranks: Int32[Array, ' ranks'],
) -> Int32[Array, 'ranks columns']:
  """Returns the places of each column's set bits with these ranks, from 0.

  `counts` are the results of `running`. If a column has fewer set bits, the
  place is arbitrary, but within the words.
  """
  word = jnp.sum(counts[None] <= ranks[:, None, None], axis=1, dtype=jnp.int32)
  word = jnp.minimum(word, len(words) - 1)
  return WORD * word + _within(words, counts, word, ranks[:, None], axis=0)


def pack_rows(
    mask: Bool[Array, 'rows columns'],
) -> tuple[UInt32[Array, 'rows words'], Int32[Array, 'rows words']]:
  """Returns words of the second axis, and the results of `running` for them.

  Bit i of the w-th of n words is entry i n + w, because words are then computed
  from contiguous vectors.
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
  """Returns the places of each row's set bits with these ranks.

  Words and counts are the results of `pack_rows`. Ranks follow the order of
  bits in the words, which is not that of the entries. If a row has fewer set
  bits, the place is arbitrary, but within the words.
  """
  # Unrolled, because each iteration gathers little.
  search = functools.partial(
      jnp.searchsorted, v=ranks, side='right', method='scan_unrolled'
  )
  size = words.shape[1]
  word = jnp.minimum(jax.vmap(search)(counts), size - 1).astype(jnp.int32)
  return size * _within(words, counts, word, ranks[None, :], axis=1) + word


def places(
    mask: Bool[Array, 'rows columns'], cap: int
) -> tuple[Int32[Array, 'rows cap'], Int32[Array, ' rows']]:
  """Returns `cap` places of each row's set entries, and the number of all.

  If a row has fewer set entries, the other places are arbitrary, but in bounds.
  """
  words, counts = pack_rows(mask)
  place = find_in_rows(words, counts, jnp.arange(cap, dtype=jnp.int32))
  return jnp.minimum(place, mask.shape[1] - 1), counts[:, -1]


def _words(
    lanes: Bool[Array, 'words lanes *rest'],
) -> UInt32[Array, 'words *rest']:
  """Returns words of 32 booleans each.

  The loop over lanes is written out, because XLA would sum one element after
  another on a CPU.
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
  """Returns the places of set bits within the words that contain them."""
  gathered = jnp.take_along_axis(words, word, axis=axis)
  count = jnp.take_along_axis(counts, word, axis=axis)
  return _bit(gathered, ranks - (count - _ones(gathered)))


def _bit(
    words: UInt32[Array, '*shape'], rank: Int32[Array, '*shape']
) -> Int32[Array, '*shape']:
  """Returns the place of each word's set bit with this rank, by halving."""
  place = jnp.zeros_like(rank)
  for half in (16, 8, 4, 2, 1):
    low = words & jnp.uint32((1 << half) - 1)
    ones = _ones(low)
    above = rank >= ones
    rank = jnp.where(above, rank - ones, rank)
    words = jnp.where(above, words >> half, low)
    place += jnp.where(above, half, 0)
  return place
