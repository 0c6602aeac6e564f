"""The mask of the k largest numbers, without sorting.

As integers, the bit patterns of non-negative float32 numbers are in the same
order as the numbers. The k-th largest number is therefore the largest bound
that at least k numbers reach. Its bits are determined one by one, from the
highest: a bit stays set if at least k numbers still reach the bound.

Each of the 31 bits needs one count over all numbers. Because the work does not
depend on k, k can be a traced array that differs between the SAEs of one
program. If the numbers are sharded, devices exchange only the counts.
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

  Values that equal the k-th largest are all marked, so that a row may have more
  than k. If fewer than k values are positive, only these are marked.

  Args:
    values: The values; they are compared in float32.
    k: A number below 2^31. A fraction is rounded up.
    whole: Whether the k largest are those of the whole array, not of each row.
      The array may have more than 2^31 entries.
  """
  axis = None if whole else -1
  values = jax.lax.stop_gradient(values).astype(jnp.float32)
  # This also replaces -0.0, whose bit pattern is the smallest integer.
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
  """Returns k as an int32, rounded up."""
  k = jnp.asarray(k)
  k = k if jnp.issubdtype(k.dtype, jnp.integer) else jnp.ceil(k)
  return k.astype(jnp.int32)
