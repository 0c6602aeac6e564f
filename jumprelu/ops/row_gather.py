"""Rows of arrays: gathered by index, read and written in blocks."""

from typing import Any

import jax

from jumprelu.array_typing import Array, Int32, Num


def gather(
    x: Num[Array, 'rows *rest'], index: Int32[Array, ' size']
) -> Num[Array, 'size *rest']:
  """Returns the rows with these indices.

  The caller must ensure that they are in bounds, because a check would double
  the cost.
  """
  return x.at[index].get(mode='promise_in_bounds')


def read(arrays: Any, *, start: Any, size: int) -> Any:
  """Returns `size` contiguous rows from `start` of each array in a tree."""
  return jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), arrays
  )


def write(arrays: Any, blocks: Any, number: Any) -> Any:
  """Returns each array of a tree with one block of rows replaced.

  An array [rows, ...] is viewed as [blocks, rows of a block, ...], because XLA
  writes a single leading index with all cores of a CPU, but a range of rows
  with only one core.

  Args:
    arrays: A tree of arrays.
    blocks: A tree of the same structure. Each array is a block of rows, whose
      size divides the number of rows of the array in `arrays`.
    number: The number of the block to replace.
  """

  def write_block(array, block):
    viewed = array.reshape(-1, *block.shape)
    viewed = jax.lax.dynamic_update_slice_in_dim(viewed, block[None], number, 0)
    return viewed.reshape(array.shape)

  return jax.tree.map(write_block, arrays, blocks)


def largest_divisor(count: int, limit: int) -> int:
  """Returns the largest divisor of `count` that is at most `limit`."""
  return next(
      size for size in range(min(count, limit), 0, -1) if not count % size
  )
