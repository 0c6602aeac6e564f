"""The sparse step as three Pallas kernels, for one GPU.

  rows     decodes the rows of a batch; one program per row
  latents  computes the slopes of selected pairs; one program per latent
  update   updates a latent's rows of both matrices in place; one program per
           latent

XLA does the rest: it encodes, selects pairs and sorts them by latent.

If a row has more selected latents than `cap`, the step is computed by dense
products.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import (
    active_pairs,
    adam,
    bits,
    dense,
    in_blocks,
    row_gather,
)
from jumprelu.ops.pallas import latents as latents_lib
from jumprelu.ops.pallas import rows as rows_lib
from jumprelu.ops.pallas import update as update_lib

# The largest number of latents of a block when a step is dense.
_SIZE = 16384


class Selected(NamedTuple):
  """Up to `cap` selected latents of each row; `count` may exceed `cap`."""

  index: Int32[Array, 'batch cap']
  count: Int32[Array, ' batch']


class WeightedPairs(NamedTuple):
  """The results of the kernels that run before the update.

  They are meaningless if a row has more selected latents than `cap`.
  """

  errors: active_pairs.ReconstructionErrors
  by_latent: latents_lib.Sorted
  weights: latents_lib.Weights
  vectors: active_pairs.Vectors


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    *,
    settings: active_pairs.Settings,
    cap: int,
    interpret: bool = False,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Returns both matrices after a step in place, and the step's result.

  Only the rows of latents with selected pairs are updated. If a row has more
  than `cap` selected latents, the step is dense and updates all rows. A
  non-finite step is skipped. For tests, `interpret` runs the kernels on any
  device, slowly.
  """
  selected, overflow = select(batch, settings, cap)
  fits = overflow == 0
  weighted = weight_pairs(
      batch,
      matrices.decoder,
      selected=selected,
      settings=settings,
      interpret=interpret,
  )
  errors = jax.lax.cond(
      fits,
      lambda: weighted.errors,
      lambda: dense.decode(batch, matrices.decoder),
  )
  ok = in_blocks.is_finite(batch, errors, settings)
  through_encoder = _through_encoder(
      matrices.encoder, weighted.vectors, settings
  )
  matrices = update_lib.update(
      matrices,
      batch,
      errors.scaled,
      weighted.by_latent,
      weighted.weights,
      b_enc=weighted.vectors.b_enc,
      scalars=scalars,
      settings=settings,
      ok=ok & fits,
      interpret=interpret,
  )
  matrices, vectors, through_dense = _step_dense(
      matrices,
      batch,
      scalars,
      errors,
      weighted.vectors,
      settings=settings,
      fits=fits,
      ok=ok,
  )
  result = active_pairs.summarise(batch, vectors, errors, settings=settings)
  b_dec = result.b_dec - jnp.where(fits, through_encoder, through_dense)
  return matrices, result._replace(b_dec=b_dec, ok=ok, overflow=overflow)


def _step_dense(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    errors: active_pairs.ReconstructionErrors,
    vectors: active_pairs.Vectors,
    *,
    settings: active_pairs.Settings,
    fits: Bool[Array, ''],
    ok: Bool[Array, ''],
) -> tuple[
    active_pairs.Matrices, active_pairs.Vectors, Float[Array, ' target_model']
]:
  """Returns the results of `in_blocks.walk` over dense blocks.

  If `fits`, it walks over no blocks and returns the matrices and `vectors`
  unchanged. A branch would be simpler, but XLA would copy the matrices for it.
  """
  latents = len(matrices.decoder)
  size = row_gather.largest_divisor(latents, _SIZE)
  return in_blocks.walk(
      matrices,
      batch,
      scalars,
      functools.partial(
          dense.add_up_block, batch, errors.scaled, settings=settings
      ),
      vectors,
      size=size,
      blocks=jnp.where(fits, 0, latents // size),
      settings=settings,
      ok=ok,
  )


def _through_encoder(
    encoder: Float[Array, 'latents model'],
    vectors: active_pairs.Vectors,
    settings: active_pairs.Settings,
) -> Float[Array, ' target_model'] | float:
  """Returns the product of the encoder and the gradient of b_enc.

  It is 0 without a pre-encoder bias, because b_dec then has no gradient through
  the encoder.
  """
  if not settings.pre_encoder_bias:
    return 0.0
  return jnp.matmul(vectors.b_enc, encoder, precision=jax.lax.Precision.HIGHEST)


def catch_up(
    matrices: active_pairs.Matrices, clock: Int32[Array, ''], *, b2: float
) -> active_pairs.Matrices:
  """Returns the matrices with all second moments decayed up to `clock`."""
  missed = (clock - matrices.touched).astype(jnp.float32)[:, None]
  factor = adam.decay(missed, b2=b2)
  return matrices._replace(
      nu_encoder=factor * matrices.nu_encoder,
      nu_decoder=factor * matrices.nu_decoder,
      touched=jnp.full_like(matrices.touched, clock),
  )


def select(
    batch: active_pairs.Batch, settings: active_pairs.Settings, cap: int
) -> tuple[Selected, Int32[Array, '']]:
  """Returns selected latents, and the number of rows with more than `cap`."""
  selected = Selected(*bits.places(active_pairs.selected(batch, settings), cap))
  return selected, jnp.sum(selected.count > cap, dtype=jnp.int32)


def weight_pairs(
    batch: active_pairs.Batch,
    W_dec: Float[Array, 'latents target_model'],
    *,
    selected: Selected,
    settings: active_pairs.Settings,
    interpret: bool,
) -> WeightedPairs:
  """Returns the errors, and the pairs by latent with their weights."""
  index, count = selected
  # Rows with more than `cap` are truncated. `step` then uses the dense step
  # instead of these results.
  count = jnp.minimum(count, index.shape[1])
  pre_act = jnp.take_along_axis(batch.pre_acts, index, axis=1)
  mask = jnp.arange(index.shape[1])[None, :] < count[:, None]
  errors, loss = rows_lib.decode(
      batch,
      W_dec,
      index=index,
      count=count,
      value=active_pairs.latents(pre_act, batch.threshold[index], mask),
      interpret=interpret,
  )
  by_latent = latents_lib.sort(index, count, pre_act, latents=len(W_dec))
  weights, vectors = latents_lib.slopes(
      batch,
      errors,
      W_dec,
      by_latent,
      bandwidth=settings.bandwidth,
      interpret=interpret,
  )
  return WeightedPairs(
      active_pairs.ReconstructionErrors(errors, loss),
      by_latent,
      weights,
      vectors,
  )
