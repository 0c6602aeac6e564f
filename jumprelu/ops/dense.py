"""The dense way of `pairs`: five matrix products, any device, any batch.

The loss's gradient is written out, so that of a batch's [batch, latents] arrays
only the pre-activations outlive the forward pass; latents and masks are made
anew where they are read.
"""

import math

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.ops import pairs, pseudo, row_update


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
  reconstruction = _matmul(latents, decoder) + batch.b_dec[None, :]
  errors = jnp.where(keep, reconstruction - batch.targets, 0.0)
  loss = jnp.sum(jnp.square(errors)) / rows
  l0 = jnp.sum(active, dtype=jnp.int32).astype(jnp.float32) / rows
  errors = errors * (2.0 / rows)

  slopes = _matmul(errors, decoder.T)
  on_active = jnp.where(active, slopes, 0.0)
  near = pseudo.in_kernel(batch.pre_acts, batch.threshold, settings.bandwidth)
  near &= keep
  near_slopes = jnp.where(near, slopes, 0.0).sum(axis=0)
  penalty = pairs.penalty_slope(settings, batch, l0) / rows
  count = jnp.sum(near, axis=0, dtype=jnp.int32).astype(jnp.float32)
  to_threshold = batch.threshold * near_slopes + penalty * count

  b_enc, b_dec = on_active.sum(axis=0), errors.sum(axis=0)
  to_encoder = _matmul(on_active.T, batch.inputs)
  if settings.pre_encoder_bias:
    to_encoder -= b_enc[:, None] * batch.b_dec[None, :]
    b_dec -= _weighted_sum(b_enc, encoder)
  found = pairs.Gradients(to_encoder, _matmul(latents.T, errors))
  return found, pairs.Found(
      b_enc=b_enc,
      b_dec=b_dec,
      threshold=-to_threshold / settings.bandwidth,
      fired=active.sum(axis=0, dtype=jnp.int32),
      reconstruction=loss,
      l0=l0,
      ok=pairs.all_finite(found, loss, b_enc, b_dec, to_threshold),
  )


def step(
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
) -> tuple[pairs.Matrices, pairs.Found]:
  """Take one step on all rows."""
  given, found = gradients(
      batch, matrices.encoder, matrices.decoder, settings=settings
  )
  stepped = row_update.update(matrices, given, rates, settings=settings)
  matrices = jax.tree.map(
      lambda new, old: jnp.where(found.ok, new, old), stepped, matrices
  )
  return matrices, found


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


def _matmul(a, b):
  return jnp.matmul(a, b, preferred_element_type=jnp.float32)
