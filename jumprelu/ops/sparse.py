"""The sparse way of `pairs`, in JAX: only pairs with a gradient, no sorting.

Rows are decoded rank by rank, all rows at once: the k-th active latent of each
row adds its decoder row. Backwards latents are taken in blocks, most frequent
first, and again rank by rank: the k-th row of each latent of the block adds to
the gradients of its two weight rows, which are then projected, stepped by Adam
and scaled to unit norm, so that gradients of whole matrices never exist. Both
loops end where the longest row or latent does. What is selected is kept as
bits (`bits`).

A row with more selected latents than `cap` makes the step a dense one, as exact
and slower.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import bits, dense, latent_major, pairs, pseudo


def step(
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
    cap: int,
) -> tuple[pairs.Matrices, pairs.Found]:
  """Take one step on the touched rows of both matrices, or a dense one."""
  masks = _select(batch, settings)
  index, count = bits.places(masks.selected, cap)
  longer = jnp.sum(count > cap, dtype=jnp.int32)
  overflow = longer > 0

  # Loops of no or one turn work in place, where a conditional would copy.
  def sparse(carry):
    return _step(carry[0], batch, rates, masks, index, settings=settings)

  def fallback(carry):
    return dense.step(carry[0], batch, rates, settings=settings)

  carry = matrices, _nothing(matrices)
  carry = _if(~overflow, sparse, carry)
  matrices, found = _if(overflow, fallback, carry)
  return matrices, found._replace(overflow=longer)


def gradients(
    batch: pairs.Batch,
    matrices: pairs.Matrices,
    *,
    settings: pairs.Settings,
    cap: int,
) -> tuple[pairs.Gradients, pairs.Found]:
  """Compute the gradients by which `step` would go, to look at them.

  Rows with more selected latents than `cap` lose what is beyond it.
  """
  one = jnp.float32(1)
  masks = _select(batch, settings)
  index, _ = bits.places(masks.selected, cap)
  found, rest = _step(
      jax.tree.map(jnp.zeros_like, matrices),
      batch,
      pairs.Rates(one, one, jnp.int32(0)),
      masks,
      index,
      settings=settings,
      weights=matrices,
  )
  return pairs.Gradients(found.encoder, found.decoder), rest


class _Masks(NamedTuple):
  active: Bool[Array, 'batch latents']
  near: Bool[Array, 'batch latents']
  selected: Bool[Array, 'batch latents']


def _select(batch: pairs.Batch, settings: pairs.Settings) -> _Masks:
  keep = batch.keep[:, None]
  pre_acts, threshold = batch.pre_acts, batch.threshold
  active = pseudo.is_active(pre_acts, threshold) & keep
  near = pseudo.in_kernel(pre_acts, threshold, settings.bandwidth) & keep
  return _Masks(active, near, active | near)


def _if(condition: Bool[Array, ''], function: Any, carry: Any) -> Any:
  turns = condition.astype(jnp.int32)
  return jax.lax.fori_loop(0, turns, lambda _, carry: function(carry), carry)


def _nothing(matrices: pairs.Matrices) -> pairs.Found:
  latents, d_out = matrices.decoder.shape
  number = jnp.float32(0)
  vector = jnp.zeros(latents, jnp.float32)
  return pairs.Found(
      b_enc=vector,
      b_dec=jnp.zeros(d_out, jnp.float32),
      threshold=vector,
      fired=jnp.zeros(latents, jnp.int32),
      reconstruction=number,
      l0=number,
      ok=jnp.bool_(False),
  )


def _step(
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    masks: _Masks,
    index: Int32[Array, 'batch cap'],
    *,
    settings: pairs.Settings,
    weights: pairs.Matrices | None = None,
) -> tuple[pairs.Matrices, pairs.Found]:
  """Take one step whose rows all fit."""
  rows = pairs.row_count(batch.keep)
  fired = masks.active.sum(axis=0, dtype=jnp.int32)
  l0 = fired.sum().astype(jnp.float32) / rows
  decoder = (matrices if weights is None else weights).decoder
  # In turns of ranks; how many a row has, its mask says.
  count = masks.selected.sum(axis=1, dtype=jnp.int32)
  errors = _decode(batch, decoder, index, count) - batch.targets
  errors = jnp.where(batch.keep[:, None], errors, 0.0)
  loss = jnp.sum(jnp.square(errors)) / rows
  errors = errors * (2.0 / rows)
  ok = pairs.all_finite(loss, batch.inputs, fired * batch.threshold)
  ok &= ~jnp.any(jnp.isnan(batch.pre_acts))

  backward = latent_major.Backward(
      batch, errors, masks.selected, rates, settings, weights
  )
  matrices, sums = backward.run(matrices, ok)
  shift = sums.shift if settings.pre_encoder_bias else 0.0
  near = jnp.sum(masks.near, axis=0, dtype=jnp.int32).astype(jnp.float32)
  penalty = pairs.penalty_slope(settings, batch, l0) / rows
  to_threshold = batch.threshold * sums.near + penalty * near
  return matrices, pairs.Found(
      b_enc=sums.b_enc,
      b_dec=errors.sum(axis=0) - shift,
      threshold=-to_threshold / settings.bandwidth,
      fired=fired,
      reconstruction=loss,
      l0=l0,
      ok=ok,
  )


def _decode(
    batch: pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    index: Int32[Array, 'batch cap'],
    count: Int32[Array, ' batch'],
) -> Float[Array, 'batch target_model']:
  """Add up the decoder rows of what is active, rank by rank."""
  values = jnp.take_along_axis(batch.pre_acts, index, axis=1)
  valid = jnp.arange(index.shape[1])[None, :] < count[:, None]
  valid &= values > jnp.take(batch.threshold, index)
  values = jnp.where(valid, values, 0.0)

  def add(rank, total):
    value = jax.lax.dynamic_index_in_dim(values, rank, 1)
    latent = jax.lax.dynamic_index_in_dim(index, rank, 1, keepdims=False)
    return total + value * jnp.take(decoder, latent, axis=0, mode='clip')

  start = jnp.broadcast_to(batch.b_dec, batch.targets.shape)
  return jax.lax.fori_loop(0, jnp.max(count), add, start)
