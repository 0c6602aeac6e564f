"""Gradients of one batch as the sparse, native and Pallas steps compute them.

The steps apply the gradients of the matrices without returning them. The
functions of this module call the same functions of `ops` and return all
gradients, as `dense.gradients` does. The benchmark and the tests compare the
results with float64.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from jumprelu.ops import (
    active_pairs,
    dense,
    latent_major,
    native,
    pallas,
    row_gather,
    sparse,
)
from jumprelu.ops.pallas import calls


def compute_sparse(
    batch: active_pairs.Batch,
    W_enc: jax.Array,
    W_dec: jax.Array,
    *,
    settings: active_pairs.Settings,
    cap: int,
) -> active_pairs.Gradients:
  """Returns the gradients that `sparse.step` applies."""
  selected, overflow = sparse.select(batch, settings, cap)

  def compute():
    errors = sparse.decode(batch, W_dec, selected)
    sums, place = latent_major.add_up(
        batch,
        errors.scaled,
        selected.rows,
        W_dec,
        jnp.arange(len(W_dec), dtype=jnp.int32),
        settings=settings,
    )
    return active_pairs.finish(
        batch,
        W_enc,
        row_gather.gather(sums.encoder, place).T,
        row_gather.gather(sums.decoder, place),
        sums.vectors,
        errors,
        settings=settings,
    )

  return _or_dense(compute, overflow, batch, W_enc, W_dec, settings=settings)


def compute_native(
    batch: active_pairs.Batch,
    W_enc: jax.Array,
    W_dec: jax.Array,
    *,
    settings: active_pairs.Settings,
) -> active_pairs.Gradients:
  """Returns the gradients that `native.step` applies."""
  unit = jnp.float32(1)
  scalars = active_pairs.AdamScalars(unit, unit, jnp.int32(0))
  touched = jnp.zeros(len(W_dec), jnp.int32)
  # Second moments do not affect gradients, so any arrays of the shapes will do.
  matrices = active_pairs.Matrices(W_enc.T, W_dec, W_enc.T, W_dec, touched)
  matrices, result = native.call_library(
      matrices, batch, scalars, settings=settings, update=False
  )
  return matrices.encoder.T, matrices.decoder, result


def compute_pallas(
    batch: active_pairs.Batch,
    W_enc: jax.Array,
    W_dec: jax.Array,
    *,
    settings: active_pairs.Settings,
    cap: int,
    interpret: bool = False,
) -> active_pairs.Gradients:
  """Returns the gradients that `pallas.step` applies."""
  selected, overflow = pallas.select(batch, settings, cap)

  def compute():
    weighted = pallas.weight_pairs(
        batch, W_dec, selected=selected, settings=settings, interpret=interpret
    )
    to_encoder, to_decoder = _sum_pairs(batch, weighted, interpret=interpret)
    return active_pairs.finish(
        batch,
        W_enc,
        to_encoder.T,
        to_decoder,
        weighted.vectors,
        weighted.errors,
        settings=settings,
    )

  return _or_dense(compute, overflow, batch, W_enc, W_dec, settings=settings)


def _or_dense(
    compute: Callable[[], active_pairs.Gradients],
    overflow: jax.Array,
    batch: active_pairs.Batch,
    W_enc: jax.Array,
    W_dec: jax.Array,
    *,
    settings: active_pairs.Settings,
) -> active_pairs.Gradients:
  """Returns the gradients of `compute`, or dense gradients if rows overflow.

  A row overflows if it has more selected latents than the cap.
  """
  to_encoder, to_decoder, result = jax.lax.cond(
      overflow == 0,
      compute,
      lambda: dense.gradients(batch, W_enc, W_dec, settings=settings),
  )
  return to_encoder, to_decoder, result._replace(overflow=overflow)


def _sum_pairs(
    batch: active_pairs.Batch,
    weighted: pallas.WeightedPairs,
    *,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
  """Returns the sums over pairs for both matrices, [latents, model] each.

  They are the sums that the update kernel applies, without the term of the
  pre-encoder bias.
  """
  errors, by_latent = weighted.errors.scaled, weighted.by_latent
  latents = len(batch.threshold)
  float32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  call = calls.call(
      _sums_kernel,
      latents,
      [float32((latents, x.shape[1])) for x in (batch.inputs, errors)],
      interpret=interpret,
  )
  operands = by_latent.start, by_latent.row, *weighted.weights
  return tuple(call(*operands, batch.inputs, errors))


def _sums_kernel(*refs: Any) -> None:
  """Writes the two rows of a latent, one in each sum."""
  start, rows, slope, value, inputs, errors, to_encoder, to_decoder = refs
  latent = pl.program_id(0)
  add = functools.partial(
      calls.weighted_sum, start[latent], start[latent + 1], index=rows
  )
  calls.write(to_encoder, latent, add(weight=slope, matrix=inputs))
  calls.write(to_decoder, latent, add(weight=value, matrix=errors))
