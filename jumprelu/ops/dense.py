"""The dense way of `pairs`: five matrix products, any device, any batch.

The loss's gradient is written out, so that of a batch's [batch, latents] arrays
only the pre-activations outlive the forward pass; latents and masks are made
anew where they are read.
"""

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.ops import pairs, products, pseudo


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
  rows = pairs.row_count(batch.keep)
  keep = batch.keep[:, None]
  active = pseudo.is_active(batch.pre_acts, batch.threshold) & keep
  latents = jnp.where(active, batch.pre_acts, 0.0)
  reconstruction = products.matmul(latents, W_dec) + batch.b_dec[None, :]
  errors = jnp.where(keep, reconstruction - batch.targets, 0.0)
  loss = jnp.sum(jnp.square(errors)) / rows
  l0 = jnp.sum(active, dtype=jnp.int32).astype(jnp.float32) / rows
  errors = errors * (2.0 / rows)

  slopes = products.matmul(errors, W_dec.T)
  on_active = jnp.where(active, slopes, 0.0)
  near = pseudo.in_kernel(batch.pre_acts, batch.threshold, settings.bandwidth)
  near &= keep
  near_slopes = jnp.where(near, slopes, 0.0).sum(axis=0)
  penalty = pairs.penalty_slope(settings, batch, l0) / rows
  count = jnp.sum(near, axis=0, dtype=jnp.int32).astype(jnp.float32)
  to_threshold = batch.threshold * near_slopes + penalty * count

  b_enc, b_dec = on_active.sum(axis=0), errors.sum(axis=0)
  to_encoder = products.matmul(batch.inputs.T, on_active)
  to_decoder = products.matmul(latents.T, errors)
  if settings.pre_encoder_bias:
    # The encoder read inputs - b_dec: both gradients feel it.
    to_encoder -= batch.b_dec[:, None] * b_enc[None, :]
    b_dec -= jnp.matmul(W_enc, b_enc, precision=jax.lax.Precision.HIGHEST)
  ok = pairs.all_finite(
      to_encoder, to_decoder, loss, b_enc, b_dec, to_threshold
  )
  return (
      to_encoder,
      to_decoder,
      pairs.Found(
          b_enc=b_enc,
          b_dec=b_dec,
          threshold=-to_threshold / settings.bandwidth,
          fired=active.sum(axis=0, dtype=jnp.int32),
          reconstruction=loss,
          l0=l0,
          ok=ok,
      ),
  )
