"""The kernel of the forward pass: one program decodes one row of the batch."""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import active_pairs
from jumprelu.ops.pallas import calls


def _kernel(*refs: Any) -> None:
  """Writes the scaled error of one row, and its squared norm.

  `scale` is 2 / rows, or 0 in a row that is not kept.
  """
  index, count, value, scale, decoder, b_dec, targets, errors, losses = refs
  row = pl.program_id(0)
  factor, length = scale[row], count[row]

  def add(rank, valid, total):
    weight = jnp.where(valid, value[row, rank], 0.0)
    return calls.axpy(weight, calls.read(decoder, index[row, rank]), total)

  total = calls.fold(0, length, add, calls.read(b_dec, 0))
  difference = calls.axpy(-1.0, calls.read(targets, row), total)
  difference = tuple(jnp.where(factor > 0, x, 0.0) for x in difference)
  losses[row] = calls.dot(difference, difference)
  calls.write(errors, row, tuple(x * factor for x in difference))


def decode(
    batch: active_pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    *,
    index: Int32[Array, 'batch cap'],
    count: Int32[Array, ' batch'],
    value: Float[Array, 'batch cap'],
    interpret: bool = False,
) -> tuple[Float[Array, 'batch target_model'], Float[Array, '']]:
  """Returns the two fields of `active_pairs.ReconstructionErrors`.

  Args:
    batch: The batch.
    decoder: The decoder.
    index: The selected latents of each row.
    count: The number of valid entries in each row of `index`.
    value: The latents (`active_pairs.latents`) of these entries.
    interpret: Whether the kernel is interpreted instead of compiled.
  """
  rows = active_pairs.row_count(batch.keep)
  float32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  call = calls.call(
      _kernel,
      len(batch.keep),
      (float32(batch.targets.shape), float32(batch.keep.shape)),
      interpret=interpret,
  )
  errors, losses = call(
      index,
      count,
      value,
      jnp.where(batch.keep, 2.0 / rows, 0.0),
      decoder,
      batch.b_dec[None, :],
      batch.targets,
  )
  return errors, losses.sum() / rows
