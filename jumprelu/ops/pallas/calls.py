"""How the kernels lie on a GPU: one program a row or a latent, through Triton.

A program holds one row of a matrix in registers, in tiles: Triton wants sizes
that are powers of two, and a model's are not, so that 2,304 is two of 1,024 and
one of 256. No program writes what another one reads or writes, so that there
are no atomics, and the same bits each time.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

# Numbers of a tile, at most.
_TILE = 1024
# Rows that a program asks for together: memory answers late.
AT_ONCE = 2
_WARPS = 4

# One row of a matrix, in tiles.
Tiles = tuple[jax.Array, ...]


def tiles(size: int) -> list[Any]:
  """Cut a row of any size into slices whose sizes are powers of two."""
  found, start = [], 0
  while start < size:
    width = min(_TILE, 1 << ((size - start).bit_length() - 1))
    found.append(pl.ds(start, width))
    start += width
  return found


def read(matrix: Any, row: Any) -> Tiles:
  """Read one row of a matrix."""
  return tuple(matrix[row, tile] for tile in tiles(matrix.shape[-1]))


def write(matrix: Any, row: Any, values: Tiles) -> None:
  """Write one row of a matrix."""
  for tile, value in zip(tiles(matrix.shape[-1]), values, strict=True):
    matrix[row, tile] = value


def zeros(size: int) -> Tiles:
  """Start a sum of rows of this size."""
  return tuple(jnp.zeros(tile.size, jnp.float32) for tile in tiles(size))


def axpy(factor: Any, x: Tiles, y: Tiles) -> Tiles:
  """Give factor * x + y."""
  return tuple(factor * a + b for a, b in zip(x, y, strict=True))


def dot(x: Tiles, y: Tiles) -> Any:
  """Give the inner product of two rows."""
  return sum(jnp.sum(a * b) for a, b in zip(x, y, strict=True))


def fold(
    first: Any, last: Any, body: Callable[[Any, Any, Any], Any], start: Any
) -> Any:
  """Fold `body(i, there, total)` over first <= i < last, some together.

  Behind the last one it comes again, and must count nothing: `there` is false.
  """

  def add(step, total):
    for k in range(AT_ONCE):
      i = first + step * AT_ONCE + k
      total = body(jnp.minimum(i, last - 1), i < last, total)
    return total

  return jax.lax.fori_loop(
      0, (last - first + AT_ONCE - 1) // AT_ONCE, add, start
  )


def weighted_sum(
    first: Any, last: Any, *, index: Any, weight: Any, matrix: Any
) -> Tiles:
  """Add up matrix[index[i]] times weight[i] over first <= i < last."""

  def body(i, there, total):
    factor = jnp.where(there, weight[i], 0.0)
    return axpy(factor, read(matrix, index[i]), total)

  return fold(first, last, body, zeros(matrix.shape[-1]))


def call(
    kernel: Callable[..., None],
    programs: int,
    out_shape: Any,
    *,
    interpret: bool,
    aliases: Mapping[int, int] | None = None,
) -> Callable[..., Any]:
  """Make a call of a kernel that sees all of its operands and results.

  `aliases` names the result that lies where an operand lay, by their numbers.
  """
  return pl.pallas_call(
      kernel,
      grid=(programs,),
      out_shape=out_shape,
      input_output_aliases=dict(aliases or {}),
      interpret=interpret,
      compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
  )
