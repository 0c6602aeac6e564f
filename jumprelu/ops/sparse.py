"""The sparse step in JAX: only pairs with a gradient.

These pairs are called selected. They are stored as bits (`bits`), so that none
has to be sorted.

The forward pass decodes all rows together, in a loop over ranks: iteration k
adds the decoder row of the k-th selected latent of each row. The loop ends when
the row with the most selected latents is complete. The backward pass loops over
the k-th selected row of each latent (`latent_major`). Pre-activations come from
a dense product before the step.

If a row has more selected latents than `cap`, the whole step is computed by
dense products, which are as exact as such long loops, and faster.
"""

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

# The number of ranks added in one iteration. Several are added at once, so that
# the sums are read and written only once for all of them.
_RANKS_PER_ADD = 8
# The number of ranks that are looked up in the bits together; a multiple of
# `_RANKS_PER_ADD`.
_RANKS_PER_LOOKUP = 32


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    *,
    settings: active_pairs.Settings,
    cap: int,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Returns both matrices after a step in place, and the step's result.

  A non-finite step is skipped. If a row has more than `cap` selected latents,
  the step is dense.
  """
  errors, add_up, overflow = prepare(
      matrices.decoder, batch, settings=settings, cap=cap
  )
  matrices, result = in_blocks.step(
      matrices, batch, scalars, errors, add_up, settings=settings
  )
  return matrices, result._replace(overflow=overflow)


def prepare(
    decoder: Float[Array, 'latents target_model'],
    batch: active_pairs.Batch,
    *,
    settings: active_pairs.Settings,
    cap: int | None,
) -> tuple[
    active_pairs.ReconstructionErrors, in_blocks.AddUp, Int32[Array, '']
]:
  """Returns the errors of a batch, its sums, and the rows with too many pairs.

  The sums are a function for `in_blocks.step`. The last result is the number of
  rows with more than `cap` selected latents. If there are any, errors and sums
  are computed by dense products. None is no limit.
  """
  selected, overflow = select(batch, settings, cap)

  def choose(by_pairs, by_products):
    if cap is None:
      return by_pairs()
    return jax.lax.cond(overflow == 0, by_pairs, by_products)

  errors = choose(
      lambda: decode(batch, decoder, selected),
      lambda: dense.decode(batch, decoder),
  )

  def add_up(decoder, numbers):
    return choose(
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

  return errors, add_up, overflow


class Selected(NamedTuple):
  """The active or near pairs of a batch."""

  # The selected rows of each latent, packed by `bits.pack`.
  rows: UInt32[Array, 'row_words latents']
  # The selected latents of each row, and their running counts, packed by
  # `bits.pack_rows`.
  latents: UInt32[Array, 'batch latent_words']
  running: Int32[Array, 'batch latent_words']


def select(
    batch: active_pairs.Batch, settings: active_pairs.Settings, cap: int | None
) -> tuple[Selected, Int32[Array, '']]:
  """Returns selected pairs, and the number of rows with more than `cap`."""
  mask = active_pairs.selected(batch, settings)
  selected = Selected(bits.pack(mask), *bits.pack_rows(mask))
  if cap is None:
    return selected, jnp.int32(0)
  overflows = selected.running[:, -1] > cap
  return selected, jnp.sum(overflows, dtype=jnp.int32)


def decode(
    batch: active_pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    selected: Selected,
) -> active_pairs.ReconstructionErrors:
  """Returns the errors of a batch, decoded from its selected pairs."""
  return active_pairs.scale_errors(batch, _sum_active(batch, decoder, selected))


def _sum_active(
    batch: active_pairs.Batch,
    decoder: Float[Array, 'latents target_model'],
    selected: Selected,
) -> Float[Array, 'batch target_model']:
  """Returns reconstructions: b_dec plus active latents times decoder rows."""
  longest = jnp.max(selected.running[:, -1])

  def body(iteration, total):
    first = iteration * _RANKS_PER_LOOKUP
    index, values = _look_up(batch, selected, first)
    ranks = jnp.minimum(longest - first, _RANKS_PER_LOOKUP)
    additions = (ranks + _RANKS_PER_ADD - 1) // _RANKS_PER_ADD
    add = functools.partial(_add, decoder, index, values)
    return jax.lax.fori_loop(0, additions, add, total)

  start = jnp.broadcast_to(batch.b_dec, batch.targets.shape)
  lookups = (longest + _RANKS_PER_LOOKUP - 1) // _RANKS_PER_LOOKUP
  return jax.lax.fori_loop(0, lookups, body, start)


def _look_up(
    batch: active_pairs.Batch, selected: Selected, first: Int32[Array, '']
) -> tuple[Int32[Array, 'batch ranks'], Float[Array, 'batch ranks']]:
  """Returns the selected latents of each row by rank, and their values.

  The ranks are the `_RANKS_PER_LOOKUP` from `first`. A value is 0 if the latent
  is not active or the row has no selected latent of that rank.
  """
  ranks = first + jnp.arange(_RANKS_PER_LOOKUP, dtype=jnp.int32)
  index = bits.find_in_rows(selected.latents, selected.running, ranks)
  index = jnp.minimum(index, len(batch.threshold) - 1)
  values = jnp.take_along_axis(batch.pre_acts, index, axis=1)
  mask = ranks[None, :] < selected.running[:, -1:]
  return index, active_pairs.latents(values, batch.threshold[index], mask)


def _add(
    decoder: Float[Array, 'latents target_model'],
    index: Int32[Array, 'batch ranks'],
    values: Float[Array, 'batch ranks'],
    iteration: Int32[Array, ''],
    total: Float[Array, 'batch target_model'],
) -> Float[Array, 'batch target_model']:
  """Returns `total` plus the weighted decoder rows of `_RANKS_PER_ADD` ranks.

  Args:
    decoder: The decoder.
    index: The latents that were looked up.
    values: Their values.
    iteration: The index of this group of `_RANKS_PER_ADD` ranks among the ranks
      that were looked up.
    total: The sums over lower ranks.
  """
  take_ranks = functools.partial(
      jax.lax.dynamic_slice_in_dim,
      start_index=iteration * _RANKS_PER_ADD,
      slice_size=_RANKS_PER_ADD,
      axis=1,
  )
  index, values = take_ranks(index), take_ranks(values)
  for k in range(_RANKS_PER_ADD):
    total += values[:, k, None] * row_gather.gather(decoder, index[:, k])
  return total
