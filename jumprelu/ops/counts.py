"""Exact sums of counts beyond int32, without 64-bit integers.

A batch of SAEs may have more than 2^31 latents over its rows, while 64-bit
integers are off in JAX unless the whole program enables them. A sum is
therefore kept in two int32 words:

  total = high * 2^bits + low, with 0 <= low < 2^bits.
"""

import math

import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32

# From this number of entries on, a count of them may not fit into int32.
LIMIT = 2**31


def at_least(
    counts: Int32[Array, '*batch'], k: Int32[Array, '']
) -> Bool[Array, '']:
  """Returns whether non-negative counts sum to k or more."""
  high, low, bits = _words(counts)
  k_high, k_low = k >> bits, k & ((1 << bits) - 1)
  return (high > k_high) | ((high == k_high) & (low >= k_low))


def total(counts: Int32[Array, '*batch']) -> Float[Array, '']:
  """Returns the sum of non-negative counts; exact below 2^24."""
  high, low, bits = _words(counts)
  return high.astype(jnp.float32) * 2.0**bits + low.astype(jnp.float32)


def _words(counts):
  # The sum of the low words of all counts stays below 2^31.
  bits = 31 - math.prod(counts.shape).bit_length()
  low = jnp.sum(counts & ((1 << bits) - 1), dtype=jnp.int32)
  high = jnp.sum(counts >> bits, dtype=jnp.int32) + (low >> bits)
  return high, low & ((1 << bits) - 1), bits
