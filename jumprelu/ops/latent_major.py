"""The sparse backward pass: blocks of latents, most frequent first.

Within a block it goes rank by rank: the k-th row of each of the block's latents
adds to the gradients of its two weight rows. The loop ends where the most
frequent latent's rows do; in order of frequency a block's latents are alike.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, Num, UInt32
from jumprelu.ops import bits, pairs

# Latents of a block, and ranks that go together: sums are read and written once
# for all of them.
_SIZE = 256
_AT_ONCE = 2


class Sums(NamedTuple):
  """What the backward pass gives, a latent."""

  # Gradients of the encoder, without the pre-encoder bias, and the decoder;
  # their rows may lie in another order (`place`).
  encoder: Float[Array, 'rows model']
  decoder: Float[Array, 'rows target_model']
  # Sums of slopes over active and near pairs, and how many those are.
  b_enc: Float[Array, ' latents']
  near_slopes: Float[Array, ' latents']
  fired: Int32[Array, ' latents']
  near: Int32[Array, ' latents']


def over_pairs(
    sums: Sums,
    errors: Float[Array, 'batch target_model'],
    loss: Float[Array, ''],
) -> pairs.Sums:
  """Give the sums that are no matrix's, with those over rows."""
  return pairs.Sums(
      b_enc=sums.b_enc,
      b_dec=errors.sum(axis=0),
      near_slopes=sums.near_slopes,
      near=sums.near,
      fired=sums.fired,
      loss=loss,
  )


class _Latents(NamedTuple):
  """One block of latents, each selected on fewer rows than the one before."""

  numbers: Int32[Array, ' block']
  threshold: Float[Array, ' block']
  count: Int32[Array, ' block']
  decoder: Float[Array, 'block target_model']
  # The rows on which they are selected, as bits, and their running counts.
  words: UInt32[Array, 'words block']
  running: Int32[Array, 'words block']


def sums(
    batch: pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    decoder: Float[Array, 'latents target_model'],
    words: UInt32[Array, 'words latents'],
    *,
    bandwidth: float,
) -> tuple[Sums, Int32[Array, ' latents']]:
  """Add up gradients over the rows that `words` selects for each latent.

  Returns:
    The sums, and where in the matrices' each latent's row is: gathering the
    matrices costs as much as an update, of which it can be a part.
  """
  latents, d_out = decoder.shape
  running = bits.running(words)
  count = running[-1]
  order = jnp.argsort(-count).astype(jnp.int32)
  # Behind the last latent it comes again, to be cut off.
  in_order = padded(order, mode='edge')

  def body(number, carry):
    numbers = jax.lax.dynamic_slice_in_dim(in_order, number * _SIZE, _SIZE)
    block = _Latents(
        numbers,
        batch.threshold[numbers],
        count[numbers],
        take(decoder, numbers),
        words[:, numbers],
        running[:, numbers],
    )
    found = _add_ranks(batch, errors, block, bandwidth)
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
            whole, part, number * _SIZE, 0
        ),
        carry,
        found,
    )

  start = _zeros(len(in_order), batch.inputs.shape[1], d_out)
  touched = jnp.sum(count > 0, dtype=jnp.int32)
  blocks = (touched + _SIZE - 1) // _SIZE
  found = jax.lax.fori_loop(0, blocks, body, start)
  # Back to the order of the latents: gathered, as scattering rows costs more.
  place = jnp.argsort(order).astype(jnp.int32)
  vectors = {
      name: take(x, place)
      for name, x in found._asdict().items()
      if name not in ('encoder', 'decoder')
  }
  return found._replace(**vectors), place


def padded(
    x: Num[Array, 'latents *rest'], **options: Any
) -> Num[Array, 'rows *rest']:
  """Fill the last block of latents up."""
  return jnp.pad(x, [(0, -len(x) % _SIZE)] + [(0, 0)] * (x.ndim - 1), **options)


def _zeros(latents: int, d_in: int, d_out: int) -> Sums:
  vector = jnp.zeros(latents, jnp.float32)
  count = jnp.zeros(latents, jnp.int32)
  return Sums(
      jnp.zeros((latents, d_in), jnp.float32),
      jnp.zeros((latents, d_out), jnp.float32),
      vector,
      vector,
      count,
      count,
  )


def _add_ranks(
    batch: pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    bandwidth: float,
) -> Sums:
  """Add up a block's gradients, rank by rank."""
  latents, half = block.numbers, bandwidth / 2

  def one(rank):
    """One row of each latent; nothing where a latent has no such."""
    row = bits.find(block.words, block.running, rank)
    row = jnp.minimum(row, len(batch.keep) - 1)
    value = batch.pre_acts.at[row, latents].get(mode='promise_in_bounds')
    slope = jnp.sum(take(errors, row) * block.decoder, axis=1)
    there = rank < block.count
    active = there & (value > block.threshold)
    near = there & (jnp.abs(value - block.threshold) < half)
    on_active = jnp.where(active, slope, 0.0)
    return Sums(
        encoder=on_active[:, None] * take(batch.inputs, row),
        decoder=jnp.where(active, value, 0.0)[:, None] * take(errors, row),
        b_enc=on_active,
        # What is not a number is seen here: nothing else of it counts.
        near_slopes=jnp.where(near, slope, jnp.where(there, 0.0 * value, 0.0)),
        fired=active.astype(jnp.int32),
        near=near.astype(jnp.int32),
    )

  def add(turn, total):
    for k in range(_AT_ONCE):
      total = jax.tree.map(jnp.add, total, one(_AT_ONCE * turn + k))
    return total

  start = _zeros(
      len(block.numbers), batch.inputs.shape[1], batch.targets.shape[1]
  )
  turns = (block.count[0] + _AT_ONCE - 1) // _AT_ONCE
  return jax.lax.fori_loop(0, turns, add, start)


def take(
    x: Num[Array, 'rows *rest'], index: Int32[Array, ' size']
) -> Num[Array, 'size *rest']:
  """Take rows that are there: looking whether they are costs as much."""
  return x.at[index].get(mode='promise_in_bounds')
