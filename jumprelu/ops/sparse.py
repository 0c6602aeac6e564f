"""The sparse way of `pairs`, in JAX: only pairs with a gradient.

Rows are decoded rank by rank, all rows at once: the k-th selected latent of
each row adds its decoder row. Backwards the same goes for latents
(`latent_major`). Both loops end where the longest row or latent does. What is
selected is kept as bits (`bits`): no pair is sorted. The encoder stays dense.

A row with more selected latents than `cap` makes the step's gradients the dense
way's: as exact, and slower.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, UInt32
from jumprelu.ops import bits, dense, in_blocks, latent_major, pairs, rows

# Ranks that are decoded together: sums are read and written once for them.
_AT_ONCE = 8


def gradients(
    batch: pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: pairs.Settings,
    cap: int,
) -> pairs.Gradients:
  """Compute all gradients of one batch, as `dense.gradients` does."""
  selected, longer = _select(batch, settings, cap)
  sparse = functools.partial(_gradients, selected=selected, settings=settings)
  return or_dense(sparse, longer, batch, W_enc, W_dec, settings=settings)


def or_dense(
    sparse: Callable[..., tuple[Array, Array, pairs.Found]],
    longer: Int32[Array, ''],
    batch: pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: pairs.Settings,
) -> pairs.Gradients:
  """Compute gradients by `sparse`, or the dense way if rows are too long.

  Args:
    sparse: Takes (batch, W_enc, W_dec), as `dense.gradients` does.
    longer: How many rows have more selected latents than `sparse` has room for.
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
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
    cap: int,
) -> tuple[pairs.Matrices, pairs.Found]:
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
            selected.words,
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
  words: UInt32[Array, 'words latents']
  # Of each row `cap` selected latents, and how many there are.
  index: Int32[Array, 'batch cap']
  count: Int32[Array, ' batch']


def _select(
    batch: pairs.Batch, settings: pairs.Settings, cap: int
) -> tuple[_Selected, Int32[Array, '']]:
  """Select, and count the rows for which there is no room."""
  mask = pairs.selected(batch, settings)
  selected = _Selected(bits.pack(mask), *bits.places(mask, cap))
  return selected, jnp.sum(selected.count > cap, dtype=jnp.int32)


def _gradients(
    batch: pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    selected: _Selected,
    settings: pairs.Settings,
) -> pairs.Gradients:
  """Compute the gradients where every row fits."""
  errors = _errors(batch, W_dec, selected)
  sums, place = latent_major.add_up(
      batch,
      errors.scaled,
      selected.words,
      W_dec,
      jnp.arange(len(W_dec), dtype=jnp.int32),
      settings=settings,
  )
  return pairs.finish(
      batch,
      W_enc,
      rows.take(sums.encoder, place).T,
      rows.take(sums.decoder, place),
      sums.vectors,
      errors,
      settings=settings,
  )


def _errors(
    batch: pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    selected: _Selected,
) -> pairs.Errors:
  return pairs.scale_errors(batch, _decode(batch, decoder, selected))


def _decode(
    batch: pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    selected: _Selected,
) -> Float[Array, 'batch target_model']:
  """Add up the decoder rows of what is active, rank by rank."""
  values = jnp.take_along_axis(batch.pre_acts, selected.index, axis=1)
  there = jnp.arange(values.shape[1])[None, :] < selected.count[:, None]
  active = values > batch.threshold[selected.index]
  values = jnp.where(there, pairs.latents(values, active), 0.0)
  # Where ranks end in the middle of a turn there are none.
  padding = (0, 0), (0, -values.shape[1] % _AT_ONCE)
  values, index = jnp.pad(values, padding), jnp.pad(selected.index, padding)
  some = functools.partial(
      jax.lax.dynamic_slice_in_dim, slice_size=_AT_ONCE, axis=1
  )

  def add(turn, total):
    value, latent = (some(x, turn * _AT_ONCE) for x in (values, index))
    for k in range(_AT_ONCE):
      total += value[:, k, None] * rows.take(decoder, latent[:, k])
    return total

  start = jnp.broadcast_to(batch.b_dec, batch.targets.shape)
  turns = (jnp.max(selected.count) + _AT_ONCE - 1) // _AT_ONCE
  return jax.lax.fori_loop(0, turns, add, start)
