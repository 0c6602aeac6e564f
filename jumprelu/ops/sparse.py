"""The sparse way of `pairs`, in JAX: only pairs with a gradient, no sorting.

Rows are decoded rank by rank, all rows at once: the k-th selected latent of
each row adds its decoder row. Backwards the same goes for latents
(`latent_major`). Both loops end where the longest row or latent does. What is
selected is kept as bits (`bits`). The encoder and the optimiser stay dense.

A row with more selected latents than `cap` makes the step's gradients the dense
way's: as exact, and slower.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, UInt32
from jumprelu.ops import bits, dense, latent_major, pairs, row_update


def step(
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
    cap: int,
) -> tuple[pairs.Matrices, pairs.Found]:
  """Take one step."""
  given, found = gradients(
      batch, matrices.encoder, matrices.decoder, settings=settings, cap=cap
  )
  stepped = row_update.update(
      matrices, given, rates, settings=settings, ok=found.ok
  )
  return stepped, found


def gradients(
    batch: pairs.Batch,
    encoder: Float[Array, 'latents model'],
    decoder: Float[Array, 'latents target_model'],
    *,
    settings: pairs.Settings,
    cap: int,
) -> tuple[pairs.Gradients, pairs.Found]:
  """Compute all gradients of one batch."""
  selected = _select(batch, settings, cap)
  longer = jnp.sum(selected.count > cap, dtype=jnp.int32)

  def fallback():
    to_encoder, to_decoder, rest = dense.gradients(
        batch, encoder.T, decoder, settings=settings
    )
    return pairs.Gradients(to_encoder.T, to_decoder), rest

  given, found = jax.lax.cond(
      longer == 0,
      lambda: _gradients(batch, encoder, decoder, selected, settings),
      fallback,
  )
  return given, found._replace(overflow=longer)


class _Selected(NamedTuple):
  """Active or near pairs."""

  # Rows as bits, a column a latent.
  words: UInt32[Array, 'words latents']
  # Of each row the first selected latents, and how many there are.
  index: Int32[Array, 'batch cap']
  count: Int32[Array, ' batch']


def _select(
    batch: pairs.Batch, settings: pairs.Settings, cap: int
) -> _Selected:
  distance = batch.pre_acts - batch.threshold[None, :]
  # Above the threshold or inside the kernel, as `pseudo` compares; or no number.
  selected = ~(distance <= -settings.bandwidth / 2) & batch.keep[:, None]
  return _Selected(bits.pack(selected), *bits.places(selected, cap))


def _gradients(
    batch: pairs.Batch,
    encoder: Float[Array, 'latents model'],
    decoder: Float[Array, 'latents target_model'],
    selected: _Selected,
    settings: pairs.Settings,
) -> tuple[pairs.Gradients, pairs.Found]:
  """Compute the gradients where every row fits."""
  rows = pairs.row_count(batch.keep)
  errors = _decode(batch, decoder, selected) - batch.targets
  errors = jnp.where(batch.keep[:, None], errors, 0.0)
  loss = jnp.sum(jnp.square(errors)) / rows
  errors = errors * (2.0 / rows)

  sums = latent_major.sums(
      batch, errors, decoder, selected.words, bandwidth=settings.bandwidth
  )
  l0 = sums.fired.sum().astype(jnp.float32) / rows
  penalty = pairs.penalty_slope(settings, batch, l0) / rows
  to_threshold = batch.threshold * sums.near_slopes + penalty * sums.near
  given = pairs.Gradients(sums.encoder, sums.decoder)
  b_dec = errors.sum(axis=0)
  if settings.pre_encoder_bias:
    # The encoder read inputs - b_dec: both gradients feel it.
    own = given.encoder - sums.b_enc[:, None] * batch.b_dec[None, :]
    given = given._replace(encoder=own)
    b_dec -= _weighted_sum(sums.b_enc, encoder)
  ok = pairs.all_finite(given, loss, sums.b_enc, b_dec, to_threshold)
  return given, pairs.Found(
      b_enc=sums.b_enc,
      b_dec=b_dec,
      threshold=-to_threshold / settings.bandwidth,
      fired=sums.fired,
      reconstruction=loss,
      l0=l0,
      ok=ok,
  )


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


def _decode(
    batch: pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    selected: _Selected,
) -> Float[Array, 'batch target_model']:
  """Add up the decoder rows of what is active, rank by rank."""
  index, count = selected.index, selected.count
  values = jnp.take_along_axis(batch.pre_acts, index, axis=1)
  valid = jnp.arange(index.shape[1])[None, :] < count[:, None]
  valid &= values > batch.threshold[index]
  values = jnp.where(valid, values, 0.0)

  def add(rank, total):
    value = jax.lax.dynamic_index_in_dim(values, rank, 1)
    latent = jax.lax.dynamic_index_in_dim(index, rank, 1, keepdims=False)
    row = decoder.at[latent].get(mode='promise_in_bounds')
    return total + value * row

  start = jnp.broadcast_to(batch.b_dec, batch.targets.shape)
  return jax.lax.fori_loop(0, jnp.max(count), add, start)
