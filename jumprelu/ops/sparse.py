"""The sparse way of `pairs`, in JAX: only pairs with a gradient.

Rows are decoded rank by rank, all rows at once: the k-th selected latent of
each row adds its decoder row. Backwards the same goes for latents
(`latent_major`). Both loops end where the longest row or latent does. What is
selected is kept as bits (`bits`): no pair is sorted. The encoder stays dense.

A row with more selected latents than `cap` makes the step's gradients the dense
way's, as exact: so long loops are slower than products.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, UInt32
from jumprelu.ops import (
    active_pairs,
    bits,
    dense,
    in_blocks,
    latent_major,
    row_gather,
)

# Ranks that are decoded together, as sums are read and written once for them,
# and, a multiple, ranks that are looked up together.
_AT_ONCE = 8
_LOOKED_UP = 32


def gradients(
    batch: active_pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: active_pairs.Settings,
    cap: int,
) -> active_pairs.Gradients:
  """Compute all gradients of one batch, as `dense.gradients` does."""
  selected, longer = _select(batch, settings, cap)
  sparse = functools.partial(_gradients, selected=selected, settings=settings)
  return or_dense(sparse, longer, batch, W_enc, W_dec, settings=settings)


def or_dense(
    sparse: Callable[..., tuple[Array, Array, active_pairs.StepResult]],
    longer: Int32[Array, ''],
    batch: active_pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: active_pairs.Settings,
) -> active_pairs.Gradients:
  """Compute gradients by `sparse`, or the dense way if rows are too long.

  Args:
    sparse: Takes (batch, W_enc, W_dec), as `dense.gradients` does.
    longer: How many rows have too many selected latents for `sparse`.
    batch: The batch.
    W_enc: The encoder.
    W_dec: The decoder.
    settings: What stands fixed for a run.
  """
  to_encoder, to_decoder, found = jax.lax.cond(
      longer == 0,
      lambda: sparse(batch, W_enc, W_dec),
      lambda: dense.gradients(batch, W_enc, W_dec, settings=settings),
  )
  return to_encoder, to_decoder, found._replace(overflow=longer)


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    rates: active_pairs.AdamScalars,
    *,
    settings: active_pairs.Settings,
    cap: int,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Take one step on both matrices, as `native.step` does."""
  selected, longer = _select(batch, settings, cap)
  fits = longer == 0
  errors = jax.lax.cond(
      fits,
      lambda: _errors(batch, matrices.decoder, selected),
      lambda: dense.decode(batch, matrices.decoder),
  )

  def add_up(decoder, numbers):
    return jax.lax.cond(
        fits,
        lambda: latent_major.add_up(
            batch,
            errors.scaled,
            selected.rows,
            decoder,
            numbers,
            settings=settings,
        ),
        lambda: dense.add_up_block(
            batch, errors.scaled, decoder, numbers, settings=settings
        ),
    )

  matrices, found = in_blocks.step(
      matrices, batch, rates, errors, add_up, settings=settings
  )
  return matrices, found._replace(overflow=longer)


class _Selected(NamedTuple):
  """Active or near pairs."""

  # Rows as bits, a column a latent.
  rows: UInt32[Array, 'row_words latents']
  # Latents as bits, and their running counts.
  latents: UInt32[Array, 'batch latent_words']
  running: Int32[Array, 'batch latent_words']


def _select(
    batch: active_pairs.Batch, settings: active_pairs.Settings, cap: int
) -> tuple[_Selected, Int32[Array, '']]:
  """Select, and count the rows that have more than `cap`."""
  mask = active_pairs.selected(batch, settings)
  selected = _Selected(bits.pack(mask), *bits.pack_rows(mask))
  longer = selected.running[:, -1] > cap
  return selected, jnp.sum(longer, dtype=jnp.int32)


def _gradients(
    batch: active_pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    selected: _Selected,
    settings: active_pairs.Settings,
) -> active_pairs.Gradients:
  """Compute the gradients where every row fits."""
  errors = _errors(batch, W_dec, selected)
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
      row_gather.take(sums.encoder, place).T,
      row_gather.take(sums.decoder, place),
      sums.vectors,
      errors,
      settings=settings,
  )


def _errors(
    batch: active_pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    selected: _Selected,
) -> active_pairs.ReconstructionErrors:
  return active_pairs.scale_errors(batch, _decode(batch, decoder, selected))


def _decode(
    batch: active_pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    selected: _Selected,
) -> Float[Array, 'batch target_model']:
  """Add up the decoder rows of what is active, rank by rank."""
  most = jnp.max(selected.running[:, -1])

  def body(turn, total):
    index, values = _look_up(batch, selected, turn * _LOOKED_UP)
    left = jnp.minimum(most - turn * _LOOKED_UP, _LOOKED_UP)
    turns = (left + _AT_ONCE - 1) // _AT_ONCE
    add = functools.partial(_add, decoder, index, values)
    return jax.lax.fori_loop(0, turns, add, total)

  start = jnp.broadcast_to(batch.b_dec, batch.targets.shape)
  turns = (most + _LOOKED_UP - 1) // _LOOKED_UP
  return jax.lax.fori_loop(0, turns, body, start)


def _look_up(
    batch: active_pairs.Batch, selected: _Selected, first: Int32[Array, '']
) -> tuple[Int32[Array, 'batch ranks'], Float[Array, 'batch ranks']]:
  """Give some ranks' latents and their values; 0 where there is no such."""
  ranks = first + jnp.arange(_LOOKED_UP, dtype=jnp.int32)
  index = bits.find_in_rows(selected.latents, selected.running, ranks)
  index = jnp.minimum(index, len(batch.threshold) - 1)
  values = jnp.take_along_axis(batch.pre_acts, index, axis=1)
  there = ranks[None, :] < selected.running[:, -1:]
  return index, active_pairs.latents(values, batch.threshold[index], there)


def _add(
    decoder: Float[Array, 'latents target_model'],
    index: Int32[Array, 'batch ranks'],
    values: Float[Array, 'batch ranks'],
    turn: Int32[Array, ''],
    total: Float[Array, 'batch target_model'],
) -> Float[Array, 'batch target_model']:
  """Add some ranks' decoder rows."""
  some = functools.partial(
      jax.lax.dynamic_slice_in_dim,
      start_index=turn * _AT_ONCE,
      slice_size=_AT_ONCE,
      axis=1,
  )
  index, values = some(index), some(values)
  for k in range(_AT_ONCE):
    total += values[:, k, None] * row_gather.take(decoder, index[:, k])
  return total
