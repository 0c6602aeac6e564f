"""Rows of weights: gathered, sliced, written back by blocks."""

from typing import Any

import jax

from jumprelu.array_typing import Array, Int32, Num


def take(
    x: Num[Array, 'rows *rest'], index: Int32[Array, ' size']
) -> Num[Array, 'size *rest']:
  """Take rows that are there: looking whether they are costs as much."""
  return x.at[index].get(mode='promise_in_bounds')


def read(arrays: Any, *, start: Any, size: int) -> Any:
  """Read contiguous rows of each array."""
  return jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), arrays
  )


def write(arrays: Any, parts: Any, number: Any) -> Any:
  """Write the numbered one of each array's parts of a size.

  Seen as one entry of an array of parts, whose shape is turned back: XLA splits
  such a write among a CPU's cores, and leaves that of some rows to one of them.
  """

  def one(array, part):
    together = array.reshape(-1, *part.shape)
    together = jax.lax.dynamic_update_slice_in_dim(
        together, part[None], number, 0
    )
    return together.reshape(array.shape)

  return jax.tree.map(one, arrays, parts)


def divide(count: int, most: int) -> int:
  """Give the largest number of rows, `most` or fewer, that divides `count`."""
  return next(
      size for size in range(min(count, most), 0, -1) if not count % size
  )
