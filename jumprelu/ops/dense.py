"""The dense step: matrix products over all pairs, for any device and batch.

After the encoder's product, it needs four: the reconstruction, the slopes, and
the gradients of both matrices. The gradients are written by hand, so that only
one [batch, latents] array, the pre-activations, is kept after the forward pass.
Latents and masks are recomputed where they are used.
"""

import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import active_pairs, in_blocks, products, pseudo_derivatives


def gradients(
    batch: active_pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: active_pairs.Settings,
) -> active_pairs.Gradients:
  """Returns all gradients of one batch.

  The encoder and its gradient are in the layout of a checkpoint, because a
  transposition would cost a pass over memory.
  """
  errors = decode(batch, W_dec)
  sums = add_up(batch, errors.scaled, W_dec, settings=settings)
  return active_pairs.finish(
      batch,
      W_enc,
      sums.encoder.T,
      sums.decoder,
      sums.vectors,
      errors,
      settings=settings,
  )


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    *,
    settings: active_pairs.Settings,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Returns both matrices after a step in place, and the step's result.

  A non-finite step is skipped.
  """
  errors = decode(batch, matrices.decoder)
  add_up = functools.partial(
      add_up_block, batch, errors.scaled, settings=settings
  )
  return in_blocks.step(
      matrices, batch, scalars, errors, add_up, settings=settings
  )


def decode(
    batch: active_pairs.Batch, W_dec: Float[Array, 'latents target_model']
) -> active_pairs.ReconstructionErrors:
  """Returns the errors of a batch, decoded by a matrix product.

  Non-finite pre-activations in kept rows make the loss non-finite.
  """
  latents = jnp.where(_active(batch), batch.pre_acts, 0.0)
  reconstruction = products.matmul(latents, W_dec) + batch.b_dec[None, :]
  return active_pairs.scale_errors(batch, reconstruction)


def add_up_block(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    W_dec: Float[Array, 'latents target_model'],
    numbers: Int32[Array, ' size'],
    *,
    settings: active_pairs.Settings,
) -> tuple[active_pairs.GradientSums, Int32[Array, ' size']]:
  """Returns sums over the pairs of a block of latents.

  With `batch`, `errors` and `settings` bound, this is an `in_blocks.AddUp`. The
  rows of its sums are in the order of the latents.

  Args:
    batch: The batch.
    errors: The scaled errors of its reconstruction.
    W_dec: The decoder.
    numbers: The latents of the block, contiguous.
    settings: The constants of the run.
  """
  take_block = functools.partial(
      jax.lax.dynamic_slice_in_dim,
      start_index=numbers[0],
      slice_size=len(numbers),
  )
  batch = batch._replace(
      pre_acts=take_block(batch.pre_acts, axis=1),
      threshold=take_block(batch.threshold),
  )
  sums = add_up(batch, errors, take_block(W_dec), settings=settings)
  return sums, jnp.arange(len(numbers), dtype=jnp.int32)


def _active(batch: active_pairs.Batch) -> Array:
  keep = batch.keep[:, None]
  return active_pairs.active(batch.pre_acts, batch.threshold[None, :], keep)


def add_up(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: active_pairs.Settings,
) -> active_pairs.GradientSums:
  """Returns sums over the pairs of all rows and latents of a batch.

  `errors` are the scaled ones (`ReconstructionErrors.scaled`).
  """
  active = _active(batch)
  latents = jnp.where(active, batch.pre_acts, 0.0)
  slopes = products.matmul(errors, W_dec.T)
  on_active = jnp.where(active, slopes, 0.0)
  near = pseudo_derivatives.in_kernel(
      batch.pre_acts, batch.threshold, settings.bandwidth
  )
  near &= batch.keep[:, None]
  vectors = active_pairs.Vectors(
      b_enc=on_active.sum(axis=0),
      near_slopes=jnp.where(near, slopes, 0.0).sum(axis=0),
      fired=active.sum(axis=0, dtype=jnp.int32),
      near=near.sum(axis=0, dtype=jnp.int32),
  )
  # The product is in the layout of a checkpoint. `gradients` transposes it
  # back, and XLA then removes both transpositions.
  to_encoder = products.matmul(batch.inputs.T, on_active).T
  return active_pairs.GradientSums(
      to_encoder, products.matmul(latents.T, errors), vectors
  )
