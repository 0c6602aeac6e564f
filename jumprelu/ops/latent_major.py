"""The sparse backward pass: blocks of latents, most frequent first.

Within a block it goes rank by rank: the k-th row of each of the block's latents
adds to the gradients of its two weight rows. The loop ends where the most
frequent latent's rows do; in order of frequency a block's latents are alike.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, UInt32
from jumprelu.ops import bits, pairs, rows

# Latents of a block, at most, and ranks that go together: sums are read and
# written once for all of them.
_SIZE = 256
_AT_ONCE = 2
# So few latents stay together to the end.
_FEW = 64


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
    batch: pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    words: UInt32[Array, 'words latents'],
    decoder: Float[Array, 'latents target_model'],
    numbers: Int32[Array, ' size'],
    *,
    bandwidth: float,
) -> tuple[pairs.Rows, Int32[Array, ' size']]:
  """Add up gradients over the rows that `words` selects for some latents.

  Returns:
    The sums, and where in the matrices' each latent's row is: gathering the
    matrices costs as much as an update, of which it can be a part.
  """
  words = jax.lax.dynamic_slice_in_dim(words, numbers[0], len(numbers), axis=1)
  running = bits.running(words)
  count = running[-1]
  order = jnp.argsort(-count).astype(jnp.int32)
  size = rows.divide(len(numbers), _SIZE)

  def body(number, carry):
    some = rows.read(order, start=number * size, size=size)
    block = _Latents(
        numbers[some],
        batch.threshold[numbers[some]],
        count[some],
        rows.take(decoder, numbers[some]),
        words[:, some],
        running[:, some],
    )
    found = _add_ranks(batch, errors, block, bandwidth)
    return rows.write(carry, found, number * size)

  start = _zeros(len(numbers), batch.inputs.shape[1], decoder.shape[1])
  touched = jnp.sum(count > 0, dtype=jnp.int32)
  blocks = (touched + size - 1) // size
  found = jax.lax.fori_loop(0, blocks, body, start)
  # Back to the order of the latents: gathered, as scattering rows costs more.
  place = jnp.argsort(order).astype(jnp.int32)
  vectors = jax.tree.map(lambda x: rows.take(x, place), found.vectors)
  return found._replace(vectors=vectors), place


def _zeros(latents: int, d_in: int, d_out: int) -> pairs.Rows:
  return pairs.Rows(
      jnp.zeros((latents, d_in), jnp.float32),
      jnp.zeros((latents, d_out), jnp.float32),
      pairs.no_vectors(latents),
  )


def _add_ranks(
    batch: pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    bandwidth: float,
) -> pairs.Rows:
  """Add up a block's gradients, rank by rank.

  Where half of the latents has no more rows, the other half goes on: by a power
  law a few of them have most.
  """
  total = _zeros(len(block.count), batch.inputs.shape[1], errors.shape[1])
  done, size = jnp.int32(0), len(block.count)
  while size:
    some = _Latents(
        *(x[:size] for x in block[:4]), *(x[:, :size] for x in block[4:])
    )
    half = size // 2 if size > _FEW else 0
    turns = (block.count[half] - done + _AT_ONCE - 1) // _AT_ONCE
    of = functools.partial(_of, batch, errors, some, bandwidth=bandwidth)
    add = functools.partial(_add, of, done)
    part = jax.tree.map(lambda x, size=size: x[:size], total)
    part = jax.lax.fori_loop(0, turns, add, part)
    total = jax.tree.map(
        lambda x, y, size=size: x.at[:size].set(y), total, part
    )
    done += _AT_ONCE * jnp.maximum(turns, 0)
    size = half
  return total


def _add(of, done, turn, total):
  """Add some ranks' rows."""
  for k in range(_AT_ONCE):
    found = of(done + _AT_ONCE * turn + k)
    total = jax.tree.map(jnp.add, total, found)
  return total


def _of(
    batch: pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    block: _Latents,
    rank: Int32[Array, ''],
    *,
    bandwidth: float,
) -> pairs.Rows:
  """Give what one row of each latent adds; nothing where there is no such."""
  row = bits.find(block.words, block.running, rank)
  row = jnp.minimum(row, len(batch.keep) - 1)
  value = batch.pre_acts.at[row, block.numbers].get(mode='promise_in_bounds')
  slope = jnp.sum(rows.take(errors, row) * block.decoder, axis=1)
  there = rank < block.count
  active = there & (value > block.threshold)
  near = there & (jnp.abs(value - block.threshold) < bandwidth / 2)
  on_active = jnp.where(active, slope, 0.0)
  nothing = jnp.where(there, 0.0 * value, 0.0)
  return pairs.Rows(
      encoder=on_active[:, None] * rows.take(batch.inputs, row),
      decoder=jnp.where(active, value, 0.0)[:, None] * rows.take(errors, row),
      vectors=pairs.Vectors(
          b_enc=on_active,
          # What is not a number is seen here: nothing else of it counts.
          near_slopes=jnp.where(near, slope, nothing),
          fired=active.astype(jnp.int32),
          near=near.astype(jnp.int32),
      ),
  )
