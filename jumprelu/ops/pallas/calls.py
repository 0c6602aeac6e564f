"""Calls of kernels on a GPU through Triton: one program per row or latent.

A program holds one row of a matrix in registers, in tiles. Triton needs tile
sizes that are powers of two, and model sizes are not: 2,304 is two tiles of 1,024
and one of 256. No program writes memory that another one reads or writes. The
kernels therefore need no atomics, and their results are reproducible.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

# The largest size of a tile.
_TILE = 1024
# Rows that a program loads together, because this hides the latency of memory.
_ROWS_PER_ITERATION = 2
_WARPS = 4

# One row of a matrix, in tiles.
Tiles = tuple[jax.Array, ...]


def tiles(size: int) -> list[Any]:
  """Returns slices that cover a row; their sizes are powers of two."""
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
  """Returns the total of `body(i, valid, total)` over first <= i < last.

  The body is called `_ROWS_PER_ITERATION` times for each iteration of the loop.
  Calls beyond the last i repeat it with a false `valid`, and must add nothing.
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
  """Returns the sum of weight[i] matrix[index[i]] over first <= i < last."""

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
  """Returns a function that calls a kernel with whole operands and results.

  `aliases` maps the number of an operand to that of the result that shares its
  memory.
  """
  return pl.pallas_call(
      kernel,
      grid=(programs,),
      out_shape=out_shape,
      input_output_aliases=dict(aliases or {}),
      interpret=interpret,
      compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
  )
