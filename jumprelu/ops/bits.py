"""Sets as bits: which entries of a mask are set, without sorting or scattering.

Thirty-two booleans make one word; counts of set bits and their running sums
tell in which word the k-th set one is, and five halvings where in the word.
"""

import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Int32, UInt32

WORD = 32


def pack(mask: Bool[Array, 'size *rest']) -> UInt32[Array, 'words *rest']:
  """Pack the first axis: bit i of word w is entry 32 w + i."""
  size, *rest = mask.shape
  padding = [(0, -size % WORD)] + [(0, 0)] * len(rest)
  return _words(jnp.pad(mask, padding).reshape(-1, WORD, *rest))


def running(
    words: UInt32[Array, '*shape'], *, axis: int = 0
) -> Int32[Array, '*shape']:
  """Count the set bits up to and with each word."""
  return jnp.cumsum(_ones(words), axis=axis)


def find(
    words: UInt32[Array, 'words columns'],
    counts: Int32[Array, 'words columns'],
    ranks: Int32[Array, ' ranks'],
) -> Int32[Array, 'ranks columns']:
  """Give the places of each column's set bits of some ranks, counted from 0.

  `counts` is what `running` gives. Where there are not so many bits the place
  is of no meaning, but within the words.
  """
  word = jnp.sum(counts[None] <= ranks[:, None, None], axis=1, dtype=jnp.int32)
  word = jnp.minimum(word, len(words) - 1)
  return WORD * word + _within(words, counts, word, ranks[:, None], axis=0)


def pack_rows(
    mask: Bool[Array, 'rows columns'],
) -> tuple[UInt32[Array, 'rows words'], Int32[Array, 'rows words']]:
  """Pack the second axis, and count the set bits up to and with each word.

  Bit i of the w-th of n words is entry i n + w: words are made of whole vectors.
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
  """Give the places of each row's set bits of some ranks, in an order of its own.

  Words and counts are what `pack_rows` gives. Where there are not so many bits
  the place is of no meaning, but within the words.
  """
  # Unrolled, as it gathers so little a turn.
  search = functools.partial(
      jnp.searchsorted, v=ranks, side='right', method='scan_unrolled'
  )
  size = words.shape[1]
  word = jnp.minimum(jax.vmap(search)(counts), size - 1).astype(jnp.int32)
  return size * _within(words, counts, word, ranks[None, :], axis=1) + word


def places(
    mask: Bool[Array, 'rows columns'], cap: int
) -> tuple[Int32[Array, 'rows cap'], Int32[Array, ' rows']]:
  """List `cap` places of each row's set entries, and the number of all.

  Behind that number places are of no meaning, but there.
  """
  words, counts = pack_rows(mask)
  place = find_in_rows(words, counts, jnp.arange(cap, dtype=jnp.int32))
  return jnp.minimum(place, mask.shape[1] - 1), counts[:, -1]


def _words(
    lanes: Bool[Array, 'words lanes *rest'],
) -> UInt32[Array, 'words *rest']:
  """Make words of 32 booleans each.

  Lane by lane, written out: XLA sums one element after another on a CPU.
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
  """Find set bits of some ranks within the words that hold them."""
  here = jnp.take_along_axis(words, word, axis=axis)
  upto = jnp.take_along_axis(counts, word, axis=axis)
  return _bit(here, ranks - (upto - _ones(here)))


def _bit(
    words: UInt32[Array, '*shape'], rank: Int32[Array, '*shape']
) -> Int32[Array, '*shape']:
  """Find the set bit of a rank within each word, by halving."""
  place = jnp.zeros_like(rank)
  for half in (16, 8, 4, 2, 1):
    low = words & jnp.uint32((1 << half) - 1)
    ones = _ones(low)
    above = rank >= ones
    rank = jnp.where(above, rank - ones, rank)
    words = jnp.where(above, words >> half, low)
    place += jnp.where(above, half, 0)
  return place
