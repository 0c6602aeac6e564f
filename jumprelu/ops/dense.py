"""The dense way of `pairs`: five matrix products, any device, any batch.

The loss's gradient is written out, so that of a batch's [batch, latents] arrays
only the pre-activations outlive the forward pass; latents and masks are made
anew where they are read.
"""

import math

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.ops import pairs, products, pseudo


def gradients(
    batch: pairs.Batch,
    encoder: Float[Array, 'latents model'],
    decoder: Float[Array, 'latents target_model'],
    *,
    settings: pairs.Settings,
) -> tuple[pairs.Gradients, pairs.Found]:
  """Compute all gradients of one batch."""
  rows = pairs.row_count(batch.keep)
  keep = batch.keep[:, None]
  active = pseudo.is_active(batch.pre_acts, batch.threshold) & keep
  latents = jnp.where(active, batch.pre_acts, 0.0)
  reconstruction = products.matmul(latents, decoder) + batch.b_dec[None, :]
  errors = jnp.where(keep, reconstruction - batch.targets, 0.0)
  loss = jnp.sum(jnp.square(errors)) / rows
  l0 = jnp.sum(active, dtype=jnp.int32).astype(jnp.float32) / rows
  errors = errors * (2.0 / rows)

  slopes = products.matmul(errors, decoder.T)
  on_active = jnp.where(active, slopes, 0.0)
  near = pseudo.in_kernel(batch.pre_acts, batch.threshold, settings.bandwidth)
  near &= keep
  near_slopes = jnp.where(near, slopes, 0.0).sum(axis=0)
  penalty = pairs.penalty_slope(settings, batch, l0) / rows
  count = jnp.sum(near, axis=0, dtype=jnp.int32).astype(jnp.float32)
  to_threshold = batch.threshold * near_slopes + penalty * count

  b_enc, b_dec = on_active.sum(axis=0), errors.sum(axis=0)
  given = pairs.Gradients(
      products.matmul(on_active.T, batch.inputs),
      products.matmul(latents.T, errors),
  )
  if settings.pre_encoder_bias:
    given, b_dec = through_bias(given, batch, b_enc, b_dec, encoder)
  return given, pairs.Found(
      b_enc=b_enc,
      b_dec=b_dec,
      threshold=-to_threshold / settings.bandwidth,
      fired=active.sum(axis=0, dtype=jnp.int32),
      reconstruction=loss,
      l0=l0,
      ok=pairs.all_finite(given, loss, b_enc, b_dec, to_threshold),
  )


def through_bias(
    given: pairs.Gradients,
    batch: pairs.Batch,
    b_enc: Float[Array, ' latents'],
    b_dec: Float[Array, ' model'],
    encoder: Float[Array, 'latents model'],
) -> tuple[pairs.Gradients, Float[Array, ' model']]:
  """Add what an encoder of inputs - b_dec sends to itself and to b_dec."""
  own = given.encoder - b_enc[:, None] * batch.b_dec[None, :]
  return given._replace(encoder=own), b_dec - _weighted_sum(b_enc, encoder)


def _weighted_sum(
    weights: Float[Array, ' latents'], rows: Float[Array, 'latents model']
) -> Float[Array, ' model']:
  """Sum in two stages: of many thousand terms one running sum is not exact."""
  inner = math.gcd(len(weights), 64)
  parts = jnp.einsum(
      'cl,cld->cd',
      weights.reshape(-1, inner),
      rows.reshape(-1, inner, rows.shape[1]),
      precision=jax.lax.Precision.HIGHEST,
  )
  return parts.sum(axis=0)
