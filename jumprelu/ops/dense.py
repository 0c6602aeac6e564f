"""The dense way of `pairs`: five matrix products, any device, any batch.

The loss's gradient is written out, so that of a batch's [batch, latents] arrays
only the pre-activations outlive the forward pass; latents and masks are made
anew where they are read.
"""

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import latent_major, pairs, products, pseudo, row_update


def gradients(
    batch: pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: pairs.Settings,
) -> tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    pairs.Found,
]:
  """Compute all gradients of one batch: the encoder's, the decoder's, the rest.

  The encoder lies as it is released, and so does its gradient: turning either
  would cost a pass over memory.
  """
  return pairs.finish(
      batch, W_enc, *sums(batch, W_dec, settings), settings=settings
  )


def step(
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
) -> tuple[pairs.Matrices, pairs.Found]:
  """Take one step on both matrices in place, as `native.step` does."""
  sums = by_latent(batch, matrices.decoder, settings)
  return row_update.step(matrices, batch, rates, *sums, settings=settings)


def by_latent(
    batch: pairs.Batch,
    W_dec: Float[Array, 'latents target_model'],
    settings: pairs.Settings,
) -> tuple[latent_major.Sums, Int32[Array, ' latents'], pairs.Sums]:
  """Add up over all pairs; gives the matrices' rows, their places, the rest."""
  to_encoder, to_decoder, over = sums(batch, W_dec, settings)
  of_rows = latent_major.Sums(
      latent_major.padded(to_encoder.T),
      latent_major.padded(to_decoder),
      over.b_enc,
      over.near_slopes,
      over.fired,
      over.near,
  )
  return of_rows, jnp.arange(len(W_dec), dtype=jnp.int32), over


def sums(
    batch: pairs.Batch,
    W_dec: Float[Array, 'latents target_model'],
    settings: pairs.Settings,
) -> tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    pairs.Sums,
]:
  """Add up over all pairs: the encoder's, the decoder's, the rest."""
  rows = pairs.row_count(batch.keep)
  keep = batch.keep[:, None]
  active = pseudo.is_active(batch.pre_acts, batch.threshold) & keep
  latents = jnp.where(active, batch.pre_acts, 0.0)
  reconstruction = products.matmul(latents, W_dec) + batch.b_dec[None, :]
  errors = jnp.where(keep, reconstruction - batch.targets, 0.0)
  loss = jnp.sum(jnp.square(errors)) / rows
  errors = errors * (2.0 / rows)

  slopes = products.matmul(errors, W_dec.T)
  on_active = jnp.where(active, slopes, 0.0)
  near = pseudo.in_kernel(batch.pre_acts, batch.threshold, settings.bandwidth)
  near &= keep
  to_encoder = products.matmul(batch.inputs.T, on_active)
  to_decoder = products.matmul(latents.T, errors)
  over = pairs.Sums(
      b_enc=on_active.sum(axis=0),
      b_dec=errors.sum(axis=0),
      near_slopes=jnp.where(near, slopes, 0.0).sum(axis=0),
      near=near.sum(axis=0, dtype=jnp.int32),
      fired=active.sum(axis=0, dtype=jnp.int32),
      loss=loss,
  )
  return to_encoder, to_decoder, over
