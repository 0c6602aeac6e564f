"""Attention with a cache of keys and values, to generate token by token.

The cache of the `gemma` package is not used, because `jumprelu/lm/gemma.py` uses
neither that package's attention masks nor its positions. Keys are cached after
rotation by their positions, so a cached key never changes. A cache has room for
a fixed number of positions. Keys after the newest position are masked, so that
unused room and padding have no effect.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int
from jumprelu.lm import config as config_lib

# The value of masked scores in the `gemma` package, near the lowest float32.
_MASKED = -2.3819763e38


class Cache(NamedTuple):
  """Keys and values of all layers, and the number of positions that count."""

  keys: Float[Array, 'layers sequences room kv_heads size']
  values: Float[Array, 'layers sequences room kv_heads size']
  length: Int[Array, '']


def make_cache(
    config: config_lib.LmConfig, sequences: int, room: int, *, dtype: Any
) -> Cache:
  """Returns an empty cache for `room` positions."""
  shape = (config.layers, sequences, room, config.kv_heads, config.head_dim)
  zeros = jnp.zeros(shape, dtype)
  return Cache(zeros, zeros, jnp.int32(0))


class Attention:
  """The attention of one forward pass over new positions.

  An instance is called once per layer, in order, and collects the new cache in
  `cache`. It is made and used inside one trace.

  Attributes:
    cache: The cache, with the keys and values of the layers called so far.
  """

  def __init__(self, cache: Cache, softcap: float | None):
    self.cache = cache
    self._softcap = softcap
    self._layer = 0

  def __call__(
      self,
      q: Float[Array, 'sequences positions heads size'],
      k: Float[Array, 'sequences positions kv_heads size'],
      v: Float[Array, 'sequences positions kv_heads size'],
      window: int | None,
  ) -> Float[Array, 'sequences positions heads size']:
    """Returns the heads' outputs at the new positions."""
    keys = self._store('keys', k)
    values = self._store('values', v)
    self._layer += 1
    sequences, new, heads, size = q.shape
    query = self.cache.length + jnp.arange(new)[:, None]
    distance = query - jnp.arange(keys.shape[1])[None]
    seen = (distance >= 0) & (distance < (window or keys.shape[1]))
    grouped = q.reshape(sequences, new, keys.shape[2], -1, size)
    scores = jnp.einsum('BTKGH,BSKH->BTKGS', grouped, keys)
    if self._softcap is not None:
      scores = self._softcap * jnp.tanh(scores / self._softcap)
    scores = jnp.where(seen[None, :, None, None], scores, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(keys.dtype)
    outputs = jnp.einsum('BTKGS,BSKH->BTKGH', weights, values)
    return outputs.reshape(sequences, new, heads, size)

  def _store(self, name: str, new: Array) -> Array:
    """Writes the layer's new keys or values; returns all of the layer's."""
    old = getattr(self.cache, name)
    start = (self._layer, 0, self.cache.length, 0, 0)
    whole = jax.lax.dynamic_update_slice(
        old, new[None].astype(old.dtype), start
    )
    self.cache = self.cache._replace(**{name: whole})
    return whole[self._layer]
