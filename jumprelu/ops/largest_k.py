"""The largest of many numbers, as a mask, without sorting.

Numbers that are not negative have the order of their float32 bit patterns, so
the k-th largest is found bit by bit, from the top: a bit is set if at least k
numbers remain at or above. It takes 31 counts, whatever k is; k may differ
between SAEs of one program; and over devices only the counts travel.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Num

_BITS = 31


def largest(
    values: Float[Array, '*batch latents'],
    k: int | np.number | Num[Array, ''],
    *,
    whole: bool = False,
) -> Bool[Array, '*batch latents']:
  """Mark the k largest positive values of each row, or of the `whole` array.

  Where fewer are positive, those; values equal to the k-th are all marked.
  """
  axis = None if whole else -1
  values = jax.lax.stop_gradient(values).astype(jnp.float32)
  # Also of -0., whose bits are those of the smallest integer.
  positive = jnp.where(values > 0, values, 0.0)
  bits = jax.lax.bitcast_convert_type(positive, jnp.int32)

  def count(bound):
    return jnp.sum(bits >= bound, axis=axis, keepdims=True, dtype=jnp.int32)

  def set_bit(number, bound):
    raised = bound | (jnp.int32(1) << (_BITS - 1 - number))
    return jnp.where(count(raised) >= k, raised, bound)

  bound = jnp.zeros_like(count(jnp.int32(0)))
  bound = jax.lax.fori_loop(0, _BITS, set_bit, bound)
  return (bits >= bound) & (bits > 0)
