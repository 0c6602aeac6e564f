"""The mask of the k largest numbers, without sorting.

As integers, the bit patterns of non-negative float32 numbers are in the same
order as the numbers. The k-th largest number is therefore the largest bound
that at least k numbers reach. Its bits are determined one by one, from the
highest: a bit stays set if at least k numbers still reach the bound.

Each of the 31 bits needs one count over all numbers. Because the work does not
depend on k, k can be a traced array that differs between the SAEs of one
program. If the numbers are sharded, devices exchange only the counts.

`narrowed` needs only a few passes over all numbers if k is small. It searches
among candidates: the numbers that reach the k-th largest of the maxima of
groups. At least k numbers reach that maximum, so all of the k largest are
candidates.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Int32, Num
from jumprelu.ops import bits as bits_lib
from jumprelu.ops import counts

_BITS = 31


def largest(
    values: Float[Array, '*batch latents'],
    k: int | np.number | Num[Array, ''],
    *,
    whole: bool = False,
    rows: Bool[Array, '*batch'] | None = None,
) -> Bool[Array, '*batch latents']:
  """Returns a mask of the k largest positive values of each row.

  Values that equal the k-th largest are all marked, so that a row may have more
  than k. If fewer than k values are positive, only these are marked.

  Args:
    values: The values; they are compared in float32.
    k: A number below 2^31. A fraction is rounded up.
    whole: Whether the k largest are those of the whole array, not of each row.
      The array may have more than 2^31 entries.
    rows: Which rows may have marked values; None for all.
  """
  values = jax.lax.stop_gradient(values).astype(jnp.float32)
  if rows is not None:
    values = jnp.where(rows[..., None], values, 0.0)
  return _reach(values, _search(values, k, whole=whole))


def narrowed(
    values: Float[Array, 'batch latents'],
    k: int | np.number | Num[Array, ''],
    *,
    whole: bool = False,
    rows: Bool[Array, ' batch'] | None = None,
    group: int = 32,
    limit: int = 256,
) -> Bool[Array, 'batch latents']:
  """Returns the mask of `largest`, faster on one device if k is small.

  Args:
    values: As in `largest`.
    k: As in `largest`.
    whole: As in `largest`.
    rows: As in `largest`.
    group: The number of values of a group. Rows need more than k groups.
    limit: The largest number of candidates of a row. If a row has more, all
      values are searched.
  """
  if whole and values.size >= counts.LIMIT:
    return largest(values, k, whole=whole, rows=rows)
  values = jax.lax.stop_gradient(values).astype(jnp.float32)
  # Rows are masked where values are few or read anyway, because to mask all
  # values first would cost as much as the search.
  counted = jnp.ones(len(values), bool) if rows is None else rows
  maxima = jnp.where(counted[:, None], _maxima(values, group), 0.0)
  bound = _search(maxima, k, whole=whole)
  candidates = _reach(values, bound) & counted[:, None]
  place, count = bits_lib.places(candidates, limit)

  def search_candidates():
    rank = jnp.arange(limit, dtype=jnp.int32)[None, :]
    chosen = jnp.take_along_axis(values, place, axis=1)
    chosen = jnp.where(rank < count[:, None], chosen, 0.0)
    return _search(chosen, k, whole=whole)

  def search_all():
    masked = jnp.where(counted[:, None], values, 0.0)
    return _search(masked, k, whole=whole)

  fits = jnp.max(count) <= limit
  bound = jax.lax.cond(fits, search_candidates, search_all)
  return _reach(values, bound) & counted[:, None]


def _maxima(
    values: Float[Array, 'batch latents'], size: int
) -> Float[Array, 'batch groups']:
  """Returns the largest of each `size` values; the last values may be left out.

  A group with NaN counts as 0, which is as exact, because it only lowers the
  bound that candidates must reach.
  """
  rows, latents = values.shape
  size = min(size, latents)
  groups = latents // size
  # Entries of a group are `groups` apart, because XLA computes maxima fastest
  # over an axis that is not the last.
  grouped = values[:, : size * groups].reshape(rows, size, groups)
  return grouped.max(axis=1)


def _search(
    values: Float[Array, '*batch latents'],
    k: int | np.number | Num[Array, ''],
    *,
    whole: bool,
) -> Int32[Array, '...']:
  """Returns the bits of the k-th largest positive value, by row or `whole`.

  The result is 0 if fewer than k values are positive. If k is 0, it is the bit
  pattern of a NaN, which no value reaches.
  """
  axis = None if whole else -1
  # This also replaces NaN, and -0.0, whose bit pattern is the smallest integer.
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
  return jax.lax.fori_loop(0, _BITS, set_bit, bound)


def _reach(
    values: Float[Array, '*batch latents'], bound: Int32[Array, '...']
) -> Bool[Array, '*batch latents']:
  """Returns the mask of positive values whose bits are at least `bound`."""
  least = jax.lax.bitcast_convert_type(bound, jnp.float32)
  return (values >= least) & (values > 0)


def _whole_number(k):
  """Returns k as an int32, rounded up."""
  k = jnp.asarray(k)
  k = k if jnp.issubdtype(k.dtype, jnp.integer) else jnp.ceil(k)
  return k.astype(jnp.int32)
