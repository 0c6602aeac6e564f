"""The sparse backward pass: blocks of latents, most frequent first.

Within a block it goes rank by rank: the k-th row of each of the block's latents
adds to the gradients of its two weight rows. The loop ends where the most
frequent latent's rows do; in order of frequency a block's latents are alike.

A block of frequent latents goes the dense way. By a power law a few latents
have most of the pairs, and from one in forty rows on that is faster.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, UInt32
from jumprelu.ops import active_pairs, bits, dense, row_gather

# Latents of a block, at most.
_SIZE = 256
# Ranks that go together, as sums are read and written once for all of them:
# so many while there are, then fewer.
_AT_ONCE = (8, 4, 2, 1)
# Of rows and latents a share of pairs from which on products are faster.
_FREQUENT = 1 / 40


class _Latents(NamedTuple):
  """One block of latents, each selected on fewer rows than the one before."""

  numbers: Int32[Array, ' block']
  threshold: Float[Array, ' block']
  count: Int32[Array, ' block']
  decoder: Float[Array, 'block target_model']
  # The rows on which they are selected, as bits, and their running counts.
  words: UInt32[Array, 'words block']
  running: Int32[Array, 'words block']


def add_up(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    words: UInt32[Array, 'words latents'],
    decoder: Float[Array, 'latents target_model'],
    numbers: Int32[Array, ' size'],
    *,
    settings: active_pairs.Settings,
) -> tuple[active_pairs.GradientSums, Int32[Array, ' size']]:
  """Add up gradients over the rows that `words` selects for some latents.

  Returns:
    The sums, and where in the matrices' each latent's row is: gathering the
    matrices costs as much as an update, of which it can be a part.
  """
  words = jax.lax.dynamic_slice_in_dim(words, numbers[0], len(numbers), axis=1)
  running = bits.running(words)
  count = running[-1]
  order = _by_frequency(count)
  size = row_gather.divide(len(numbers), _SIZE)

  def body(number, carry):
    some = row_gather.read(order, start=number * size, size=size)
    block = _Latents(
        numbers[some],
        batch.threshold[numbers[some]],
        count[some],
        row_gather.take(decoder, numbers[some]),
        words[:, some],
        running[:, some],
    )
    found = jax.lax.cond(
        jnp.sum(block.count) > _FREQUENT * size * len(batch.keep),
        lambda: _by_products(batch, errors, block, settings),
        lambda: _by_ranks(batch, errors, block, settings),
    )
    return row_gather.write(carry, found, number)

  start = _zeros(len(numbers), batch.inputs.shape[1], decoder.shape[1])
  touched = jnp.sum(count > 0, dtype=jnp.int32)
  blocks = (touched + size - 1) // size
  found = jax.lax.fori_loop(0, blocks, body, start)
  # Back to the order of the latents.
  places = jnp.arange(len(order), dtype=jnp.int32)
  place = jnp.zeros_like(order).at[order].set(places, unique_indices=True)
  vectors = jax.tree.map(lambda x: row_gather.take(x, place), found.vectors)
  return found._replace(vectors=vectors), place


def _by_frequency(count: Int32[Array, ' size']) -> Int32[Array, ' size']:
  """Order by falling counts, which carry the places: so XLA sorts fastest.

  Counts that leave no bits for a place are taken for alike.
  """
  size = len(count)
  most = 2**31 // size - 1
  falling = most - jnp.minimum(count, most)
  places = jnp.arange(size, dtype=jnp.int32)
  return jax.lax.sort(falling * size + places, is_stable=False) % size


def _zeros(latents: int, d_in: int, d_out: int) -> active_pairs.GradientSums:
  return active_pairs.GradientSums(
      jnp.zeros((latents, d_in), jnp.float32),
      jnp.zeros((latents, d_out), jnp.float32),
      active_pairs.no_vectors(latents),
  )


def _by_products(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    settings: active_pairs.Settings,
) -> active_pairs.GradientSums:
  """Add up over all rows, selected or not."""
  pre_acts = batch.pre_acts.at[:, block.numbers].get(mode='promise_in_bounds')
  batch = batch._replace(pre_acts=pre_acts, threshold=block.threshold)
  return dense.add_up(batch, errors, block.decoder, settings=settings)


def _by_ranks(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    settings: active_pairs.Settings,
) -> active_pairs.GradientSums:
  """Add up over the selected rows, as many ranks at once as there are."""
  add = functools.partial(_add_ranks, batch, errors, block, settings)
  most, done = jnp.max(block.count), jnp.int32(0)
  total = _zeros(len(block.count), batch.inputs.shape[1], errors.shape[1])
  for ranks in _AT_ONCE:
    turns = (most - done) // ranks
    some = functools.partial(add, done=done, ranks=ranks)
    total = jax.lax.fori_loop(0, turns, some, total)
    done += ranks * turns
  return total


def _add_ranks(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    settings: active_pairs.Settings,
    turn: Int32[Array, ''],
    total: active_pairs.GradientSums,
    *,
    done: Int32[Array, ''],
    ranks: int,
) -> active_pairs.GradientSums:
  """Add one row of each latent for each rank; none where there is no such."""
  numbers, threshold, count = (x[None] for x in block[:3])
  rank = done + ranks * turn + jnp.arange(ranks, dtype=jnp.int32)
  row = bits.find(block.words, block.running, rank)
  row = jnp.minimum(row, len(batch.keep) - 1)
  value = batch.pre_acts.at[row, numbers].get(mode='promise_in_bounds')
  error = errors.at[row].get(mode='promise_in_bounds')
  slope = _sums(error * block.decoder[None])
  there = rank[:, None] < count
  active = there & (value > threshold)
  near = jnp.abs(value - threshold) < settings.bandwidth / 2
  near &= there
  on_active = jnp.where(active, slope, 0.0)
  value = jnp.where(active, value, 0.0)
  to_encoder, to_decoder, vectors = total
  for k in range(ranks):
    to_encoder += on_active[k, :, None] * row_gather.take(batch.inputs, row[k])
    to_decoder += value[k, :, None] * row_gather.take(errors, row[k])
  found = active_pairs.Vectors(
      b_enc=on_active.sum(axis=0),
      near_slopes=jnp.where(near, slope, 0.0).sum(axis=0),
      fired=active.sum(axis=0, dtype=jnp.int32),
      near=near.sum(axis=0, dtype=jnp.int32),
  )
  vectors = jax.tree.map(jnp.add, vectors, found)
  return active_pairs.GradientSums(to_encoder, to_decoder, vectors)


def _sums(x: Float[Array, '*rest model']) -> Float[Array, '*rest']:
  """Sum rows by a product with ones: of gathered ones the fastest on a CPU."""
  ones = jnp.ones(x.shape[-1], x.dtype)
  return jnp.matmul(x, ones, precision=jax.lax.Precision.HIGHEST)
