"""The sparse backward pass: blocks of latents, most frequent first.

The frequency of a latent is the number of rows on which it is selected. Latents
are sorted by it, so that the latents of a block have similar frequencies.

Inside a block, loops run over ranks. Rank k is the k-th selected row of each
latent. A rank adds these rows to the gradients of the latents' two
weight rows. The ranks end with the last row of the most frequent latent, and
latents with fewer rows are masked. Little work is wasted, because frequencies
are similar.

Frequencies follow a power law: a few latents have most of the pairs. A block of
latents that are selected on more than one row in forty is computed by dense
products, which are then faster.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, UInt32
from jumprelu.ops import active_pairs, bits, dense, row_gather

# The largest number of latents of a block. `add_up` receives more latents than
# this (those of a block of `in_blocks`), sorts them by frequency, and divides
# them into blocks.
_SIZE = 256
# Eight ranks are added in one iteration, because the sums are then read and
# written once for all of them. The remaining ranks are added in iterations of
# four, two and one.
_RANKS_PER_ADD = (8, 4, 2, 1)
# Dense products are faster if more than this share of a block's pairs is
# selected.
_FREQUENT = 1 / 40


class _Latents(NamedTuple):
  """One block of latents, most frequent first."""

  # The number of each latent in the SAE.
  numbers: Int32[Array, ' block']
  threshold: Float[Array, ' block']
  # The number of rows on which each latent is selected.
  count: Int32[Array, ' block']
  decoder: Float[Array, 'block target_model']
  # The rows on which each latent is selected, packed by `bits.pack`, and the
  # running counts of these bits.
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
  """Returns sums over the selected rows of a range of latents.

  Args:
    batch: The batch.
    errors: The scaled errors of its reconstruction.
    words: The selected rows of all latents, packed by `bits.pack`.
    decoder: The decoder.
    numbers: The latents, contiguous.
    settings: The constants of the run.

  Returns:
    The sums, and for each latent the index of its row in the sums of the two
    matrices. These rows are in the order of falling frequency, because
    reordering them here would cost as much as an update. The update gathers
    them by their index instead.
  """
  words = jax.lax.dynamic_slice_in_dim(words, numbers[0], len(numbers), axis=1)
  running = bits.running(words)
  count = running[-1]
  order = _by_frequency(count)
  size = row_gather.largest_divisor(len(numbers), _SIZE)

  def body(number, carry):
    latents = row_gather.read(order, start=number * size, size=size)
    block = _Latents(
        numbers[latents],
        batch.threshold[numbers[latents]],
        count[latents],
        row_gather.gather(decoder, numbers[latents]),
        words[:, latents],
        running[:, latents],
    )
    sums = jax.lax.cond(
        jnp.sum(block.count) > _FREQUENT * size * len(batch.keep),
        lambda: _by_products(batch, errors, block, settings),
        lambda: _by_ranks(batch, errors, block, settings),
    )
    return row_gather.write(carry, sums, number)

  start = _zeros(len(numbers), batch.inputs.shape[1], decoder.shape[1])
  touched = jnp.sum(count > 0, dtype=jnp.int32)
  blocks = (touched + size - 1) // size
  sums = jax.lax.fori_loop(0, blocks, body, start)
  # The vectors are reordered like `numbers`.
  places = jnp.arange(len(order), dtype=jnp.int32)
  place = jnp.zeros_like(order).at[order].set(places, unique_indices=True)
  vectors = jax.tree.map(lambda x: row_gather.gather(x, place), sums.vectors)
  return sums._replace(vectors=vectors), place


def _by_frequency(count: Int32[Array, ' size']) -> Int32[Array, ' size']:
  """Returns the indices of `count` in the order of falling counts.

  Each count is packed with its index into one int32, because XLA sorts single
  integers fastest. Counts too large to be packed are treated as equal.
  """
  size = len(count)
  limit = 2**31 // size - 1
  falling = limit - jnp.minimum(count, limit)
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
  """Returns sums of a block by dense products over all rows."""
  pre_acts = batch.pre_acts.at[:, block.numbers].get(mode='promise_in_bounds')
  batch = batch._replace(pre_acts=pre_acts, threshold=block.threshold)
  return dense.add_up(batch, errors, block.decoder, settings=settings)


def _by_ranks(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    settings: active_pairs.Settings,
) -> active_pairs.GradientSums:
  """Returns sums of a block over its selected rows, rank by rank."""
  add = functools.partial(_add_ranks, batch, errors, block, settings)
  longest, done = jnp.max(block.count), jnp.int32(0)
  total = _zeros(len(block.count), batch.inputs.shape[1], errors.shape[1])
  for ranks in _RANKS_PER_ADD:
    iterations = (longest - done) // ranks
    add_ranks = functools.partial(add, done=done, ranks=ranks)
    total = jax.lax.fori_loop(0, iterations, add_ranks, total)
    done += ranks * iterations
  return total


def _add_ranks(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    settings: active_pairs.Settings,
    iteration: Int32[Array, ''],
    total: active_pairs.GradientSums,
    *,
    done: Int32[Array, ''],
    ranks: int,
) -> active_pairs.GradientSums:
  """Returns `total` plus the selected rows of `ranks` consecutive ranks.

  Ranks beyond the last row of a latent are masked.

  Args:
    batch: The batch.
    errors: The scaled errors of its reconstruction.
    block: The latents.
    settings: The constants of the run.
    iteration: The number of the iteration of the loop.
    total: The sums over lower ranks.
    done: The number of ranks that were added before the loop.
    ranks: The number of ranks per iteration.
  """
  numbers, threshold, count = (x[None] for x in block[:3])
  rank = done + ranks * iteration + jnp.arange(ranks, dtype=jnp.int32)
  row = bits.find(block.words, block.running, rank)
  row = jnp.minimum(row, len(batch.keep) - 1)
  value = batch.pre_acts.at[row, numbers].get(mode='promise_in_bounds')
  error = errors.at[row].get(mode='promise_in_bounds')
  slope = _sums(error * block.decoder[None])
  valid = rank[:, None] < count
  active = valid & (value > threshold)
  near = jnp.abs(value - threshold) < settings.bandwidth / 2
  near &= valid
  on_active = jnp.where(active, slope, 0.0)
  value = jnp.where(active, value, 0.0)
  to_encoder, to_decoder, vectors = total
  for k in range(ranks):
    to_encoder += on_active[k, :, None] * row_gather.gather(
        batch.inputs, row[k]
    )
    to_decoder += value[k, :, None] * row_gather.gather(errors, row[k])
  added = active_pairs.Vectors(
      b_enc=on_active.sum(axis=0),
      near_slopes=jnp.where(near, slope, 0.0).sum(axis=0),
      fired=active.sum(axis=0, dtype=jnp.int32),
      near=near.sum(axis=0, dtype=jnp.int32),
  )
  vectors = jax.tree.map(jnp.add, vectors, added)
  return active_pairs.GradientSums(to_encoder, to_decoder, vectors)


def _sums(x: Float[Array, '*rest model']) -> Float[Array, '*rest']:
  """Returns sums over the last axis.

  They are computed as a product with ones, which is fastest on a CPU.
  """
  ones = jnp.ones(x.shape[-1], x.dtype)
  return jnp.matmul(x, ones, precision=jax.lax.Precision.HIGHEST)
