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
from jumprelu.ops import counts

_BITS = 31


def largest(
    values: Float[Array, '*batch latents'],
    k: int | np.number | Num[Array, ''],
    *,
    whole: bool = False,
) -> Bool[Array, '*batch latents']:
  """Mark the k largest positive values of each row, or of the `whole` array.

  Where fewer are positive, those; values equal to the k-th are all marked. k is
  below 2^31, the entries of a `whole` array may be more.
  """
  axis = None if whole else -1
  values = jax.lax.stop_gradient(values).astype(jnp.float32)
  # Also of -0., whose bits are those of the smallest integer.
  positive = jnp.where(values > 0, values, 0.0)
  bits = jax.lax.bitcast_convert_type(positive, jnp.int32)

  def count(bound, axis=axis):
    return jnp.sum(bits >= bound, axis=axis, keepdims=True, dtype=jnp.int32)

  def enough(bound):
    if whole and values.size >= counts.LIMIT:
      by_row = count(bound, axis=-1)
      return counts.at_least(by_row, _whole_number(k))
    return count(bound) >= k

  def set_bit(number, bound):
    raised = bound | (jnp.int32(1) << (_BITS - 1 - number))
    return jnp.where(enough(raised), raised, bound)

  shape = (1,) * values.ndim if whole else (*values.shape[:-1], 1)
  bound = jnp.zeros(shape, jnp.int32)
  bound = jax.lax.fori_loop(0, _BITS, set_bit, bound)
  return (bits >= bound) & (bits > 0)


def _whole_number(k):
  k = jnp.asarray(k)
  k = k if jnp.issubdtype(k.dtype, jnp.integer) else jnp.ceil(k)
  return k.astype(jnp.int32)
