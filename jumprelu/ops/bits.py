"""Sets as bits: which entries of a mask are set, without sorting or scattering.

Thirty-two booleans make one word; counts of set bits and their running sums
tell in which word the k-th set one is, and five halvings where in the word.
"""

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Int32, UInt32

WORD = 32


def pack(mask: Bool[Array, 'size *rest']) -> UInt32[Array, 'words *rest']:
  """Pack the first axis: bit i of word w is entry 32 w + i."""
  size, *rest = mask.shape
  padding = [(0, -size % WORD)] + [(0, 0)] * len(rest)
  words = jnp.pad(mask, padding).reshape(-1, WORD, *rest)
  lanes = jnp.uint32(1) << jnp.arange(WORD, dtype=jnp.uint32)
  lanes = lanes.reshape(1, WORD, *(1 for _ in rest))
  return jnp.sum(jnp.where(words, lanes, jnp.uint32(0)), 1, dtype=jnp.uint32)


def running(words: UInt32[Array, 'words *rest']) -> Int32[Array, 'words *rest']:
  """Count the set bits up to and with each word."""
  counts = jax.lax.population_count(words).astype(jnp.int32)
  return jnp.cumsum(counts, axis=0)


def find(
    words: UInt32[Array, 'words columns'],
    counts: Int32[Array, 'words columns'],
    rank: Int32[Array, ''],
) -> Int32[Array, ' columns']:
  """Give the place of each column's set bit of a rank, counted from 0.

  `counts` is what `running` gives. Where there are not so many bits the place
  is of no meaning, but within the words.
  """
  word = jnp.sum(counts <= rank, axis=0, dtype=jnp.int32)
  word = jnp.minimum(word, len(words) - 1)
  here = jnp.take_along_axis(words, word[None, :], axis=0)[0]
  upto = jnp.take_along_axis(counts, word[None, :], axis=0)[0]
  left = rank - (upto - _ones(here))
  return WORD * word + _bit(here, left)


def places(
    mask: Bool[Array, 'rows columns'], cap: int
) -> tuple[Int32[Array, 'rows cap'], Int32[Array, ' rows']]:
  """List `cap` places of each row's set entries, and the number of all.

  Not in their order, which would cost more: bit i of the w-th of n words is
  entry i n + w, so that words are made of whole vectors. Behind the number
  places are of no meaning, but there.
  """
  size = -(-mask.shape[1] // WORD)
  padding = size * WORD - mask.shape[1]
  lanes = jnp.pad(mask, [(0, 0), (0, padding)]).reshape(-1, WORD, size)
  words = jax.vmap(pack)(lanes)[:, 0]
  counts = jnp.cumsum(_ones(words), axis=1)
  ranks = jnp.arange(cap, dtype=jnp.int32)
  search = jax.vmap(lambda c: jnp.searchsorted(c, ranks, side='right'))
  word = jnp.minimum(search(counts), size - 1).astype(jnp.int32)
  here = jnp.take_along_axis(words, word, axis=1)
  upto = jnp.take_along_axis(counts, word, axis=1)
  left = ranks[None, :] - (upto - _ones(here))
  place = size * _bit(here, left) + word
  return jnp.minimum(place, mask.shape[1] - 1), counts[:, -1]


def _ones(words: UInt32[Array, '*shape']) -> Int32[Array, '*shape']:
  return jax.lax.population_count(words).astype(jnp.int32)


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
