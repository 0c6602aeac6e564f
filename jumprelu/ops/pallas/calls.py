"""Operations that the Pallas kernels share, and the call of a kernel.

The kernels run on a GPU through Triton. Each runs one program per row of the
batch, or one per latent, in parallel. No program writes memory that another
program reads or writes. The kernels therefore need no atomics, and their
results are reproducible.

A program keeps a row of a matrix in registers. Triton needs sizes that are
powers of two, but the width of a model is usually not. A row is therefore a
tuple of tiles: 2,304 numbers are two tiles of 1,024 and one of 256.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

# The largest size of a tile.
_TILE = 1024
# The number of rows that a program loads in one iteration of a loop. More than
# one hides the latency of memory.
_ROWS_PER_ITERATION = 2
_WARPS = 4

# One row of a matrix, in tiles.
Tiles = tuple[jax.Array, ...]


def tiles(size: int) -> list[Any]:
  """Returns slices that cover a row of this size, one per tile."""
  slices, start = [], 0
  while start < size:
    width = min(_TILE, 1 << ((size - start).bit_length() - 1))
    slices.append(pl.ds(start, width))
    start += width
  return slices


def read(matrix: Any, row: Any) -> Tiles:
  """Returns one row of a matrix."""
  return tuple(matrix[row, tile] for tile in tiles(matrix.shape[-1]))


def write(matrix: Any, row: Any, values: Tiles) -> None:
  """Writes one row of a matrix."""
  for tile, value in zip(tiles(matrix.shape[-1]), values, strict=True):
    matrix[row, tile] = value


def zeros(size: int) -> Tiles:
  """Returns a row of zeros."""
  return tuple(jnp.zeros(tile.size, jnp.float32) for tile in tiles(size))


def axpy(factor: Any, x: Tiles, y: Tiles) -> Tiles:
  """Returns factor * x + y."""
  return tuple(factor * a + b for a, b in zip(x, y, strict=True))


def dot(x: Tiles, y: Tiles) -> Any:
  """Returns the inner product of two rows."""
  return sum(jnp.sum(a * b) for a, b in zip(x, y, strict=True))


def fold(
    first: Any, last: Any, body: Callable[[Any, Any, Any], Any], start: Any
) -> Any:
  """Returns the result of `total = body(i, valid, total)` for every i.

  Each iteration of the loop calls the body `_ROWS_PER_ITERATION` times. The
  last iteration may have calls left over. They repeat the last i with a false
  `valid`, and the body must then return `total` unchanged.

  Args:
    first: The first i.
    last: The end of the range, which i does not reach.
    body: The function to call.
    start: The total before the first call.
  """

  def add(step, total):
    for k in range(_ROWS_PER_ITERATION):
      i = first + step * _ROWS_PER_ITERATION + k
      total = body(jnp.minimum(i, last - 1), i < last, total)
    return total

  return jax.lax.fori_loop(
      0,
      (last - first + _ROWS_PER_ITERATION - 1) // _ROWS_PER_ITERATION,
      add,
      start,
  )


def weighted_sum(
    first: Any, last: Any, *, index: Any, weight: Any, matrix: Any
) -> Tiles:
  """Returns the sum of weight[i] * matrix[index[i]] over first <= i < last."""

  def body(i, valid, total):
    factor = jnp.where(valid, weight[i], 0.0)
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
  """Returns a function that runs a kernel on its arguments.

  Args:
    kernel: The kernel. It gets references to whole operands and results.
    programs: The number of programs.
    out_shape: The shapes and dtypes of the results.
    interpret: Whether the kernel is interpreted instead of compiled.
    aliases: {number of an operand: number of the result that shares its
      memory}.
  """
  return pl.pallas_call(
      kernel,
      grid=(programs,),
      out_shape=out_shape,
      input_output_aliases=dict(aliases or {}),
      interpret=interpret,
      compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
  )
