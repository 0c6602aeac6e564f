"""Sums of counts that exceed int32, without 64-bit integers.

A batch may have more than 2^31 latents (its rows times the width of the SAE),
and 64-bit integers are off in JAX unless the whole program enables them. A sum
is therefore kept in two int32 words:

  sum = high * 2^bits + low, with 0 <= low < 2^bits.

It must be below 2^(31 + bits). For n counts, `bits` is 31 minus the bit length
of n.
"""

import math

import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32

# From this number of entries on, a count of them may not fit into int32.
LIMIT = 2**31


def at_least(
    counts: Int32[Array, '*batch'], k: Int32[Array, '']
) -> Bool[Array, '']:
  """Returns whether non-negative counts sum to k or more; exact."""
  high, low, bits = _words(counts)
  k_high, k_low = k >> bits, k & ((1 << bits) - 1)
  return (high > k_high) | ((high == k_high) & (low >= k_low))


def total(counts: Int32[Array, '*batch']) -> Float[Array, '']:
  """Returns the sum of non-negative counts in float32; exact up to 2^24."""
  high, low, bits = _words(counts)
  return high.astype(jnp.float32) * 2.0**bits + low.astype(jnp.float32)


def _words(counts):
  """Returns (high, low, bits)."""
  # With this number of bits, the low words of all counts sum to below 2^31.
  bits = 31 - math.prod(counts.shape).bit_length()
  low = jnp.sum(counts & ((1 << bits) - 1), dtype=jnp.int32)
  high = jnp.sum(counts >> bits, dtype=jnp.int32) + (low >> bits)
  return high, low & ((1 << bits) - 1), bits
