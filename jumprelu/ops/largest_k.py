"""The largest of many numbers, as a mask, without sorting.

Non-negative float32 numbers have the order of their bit patterns. The k-th
largest is therefore found bit by bit, from the highest: a bit is set if at
least k numbers are then at or above the bound. This takes 31 counts for any k,
so that k may differ between the SAEs of one program. Devices exchange only the
counts.
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
  """Returns a mask of the k largest positive values of each row.

  With `whole`, they are the k largest of the whole array. If fewer than k
  values are positive, all of these are marked. Values that equal the k-th are
  all marked. k is below 2^31, but a `whole` array may have more entries.
  """
  axis = None if whole else -1
  values = jax.lax.stop_gradient(values).astype(jnp.float32)
  # This also replaces -0., whose bits are those of the smallest integer.
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
