"""The largest inner products of rows with the rows of a larger matrix.

Products are computed in blocks of the larger matrix, so that no array has the
size of both. Nearest decoder directions and promoted tokens are such products.
"""

from collections.abc import Iterator
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Float, Int

# The largest matrix of products, in bytes. Freed memory of larger arrays is
# returned to the system, which makes each new array slow.
_BLOCK_BYTES = 1 << 24
_ALIGNMENT = 64  # Bytes.


class Largest(NamedTuple):
  """The largest products of each query, in descending order.

  Of equal products, the one with the smallest index is first.
  """

  index: Int[np.ndarray, 'queries count']
  value: Float[np.ndarray, 'queries count']


def largest(
    queries: Float[np.ndarray, 'queries model'],
    keys: Float[np.ndarray, 'keys model'],
    *,
    count: int,
    excluded: Int[np.ndarray, ' queries'] | None = None,
) -> Largest:
  """Returns the keys with the largest inner products with each query.

  Args:
    queries: Rows.
    keys: Rows of the larger matrix, in any float dtype.
    count: The number of keys to return; fewer if there are fewer.
    excluded: A key that each query leaves out; none if negative or None.
  """
  if excluded is None:
    excluded = np.full(len(queries), -1)
  count = min(count, len(keys) - int((excluded >= 0).any()))
  best = Largest(
      np.zeros((len(queries), 0), np.int64),
      np.zeros((len(queries), 0), np.float32),
  )
  if count < 1:
    return best
  device_queries = jax.device_put(np.asarray(queries, np.float32))
  for start, block in _blocks(keys, len(queries)):
    index, value = _largest_of_block(
        device_queries,
        jax.device_put(block),
        jax.device_put(np.asarray(excluded - start, np.int32)),
        count=min(count, len(block)),
    )
    best = Largest(
        np.concatenate([best.index, np.asarray(index, np.int64) + start], 1),
        np.concatenate([best.value, value], 1),
    )
    # Earlier blocks have smaller indices, and the sort is stable.
    order = np.argsort(-best.value, axis=1, kind='stable')[:, :count]
    best = Largest(*(np.take_along_axis(x, order, 1) for x in best))
  return best


def unit_rows(
    rows: Float[np.ndarray, 'rows model'],
) -> Float[np.ndarray, 'rows model']:
  """Returns rows of unit norm; rows of zeros are unchanged."""
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  # On a CPU, `device_put` does not copy arrays that are aligned.
  memory = np.empty(rows.nbytes + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  memory = memory[start : start + rows.nbytes]
  units = memory.view(rows.dtype).reshape(rows.shape)
  return np.divide(rows, np.where(norms == 0, 1, norms), out=units)


def _blocks(keys, queries: int) -> Iterator[tuple[int, np.ndarray]]:
  size = max(1, _BLOCK_BYTES // (4 * max(queries, 1)))
  for start in range(0, len(keys), size):
    yield start, keys[start : start + size]


@functools.partial(jax.jit, static_argnames='count')
def _largest_of_block(
    queries: Float[Array, 'queries model'],
    keys: Float[Array, 'keys model'],
    excluded: Int[Array, ' queries'],
    *,
    count: int,
) -> tuple[Array, Array]:
  """Returns indices and values of the largest products."""
  products = jnp.einsum(
      'qm,km->qk', queries, keys.astype(jnp.float32), precision='highest'
  )
  index = jnp.arange(keys.shape[0])[None]
  products = jnp.where(index == excluded[:, None], -jnp.inf, products)
  value, index = lax.top_k(products, count)
  return index, value
