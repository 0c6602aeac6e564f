"""The sparse backward pass: blocks of latents, most frequent first.

Within a block it goes rank by rank: the k-th row of each of the block's latents
adds to the gradients of its two weight rows. The loop ends where the most
frequent latent's rows do; in order of frequency a block's latents are alike.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32, UInt32
from jumprelu.ops import bits, pairs, row_update

# Bytes of a block's four arrays [latents, model], so that they stay in cache.
_BLOCK_BYTES = 2**21


class Sums(NamedTuple):
  """What the backward pass gives besides updated matrices."""

  # Sums of slopes over each latent's active and near pairs.
  b_enc: Float[Array, ' latents']
  near: Float[Array, ' latents']
  # The encoder's columns, weighted by b_enc's gradient.
  shift: Float[Array, ' model']


class _Latents(NamedTuple):
  """One block of latents; behind the last one, numbers that are dropped."""

  numbers: Int32[Array, ' block']
  threshold: Float[Array, ' block']
  # On how many rows each is selected, the first on most.
  count: Int32[Array, ' block']
  # Those rows, as bits, and their running counts.
  words: UInt32[Array, 'words block']
  running: Int32[Array, 'words block']


class Backward(NamedTuple):
  """Everything that the pass over latents reads."""

  batch: pairs.Batch
  errors: Float[Array, 'batch target_model']
  selected: Bool[Array, 'batch latents']
  rates: pairs.Rates
  settings: pairs.Settings
  # Where given, gradients for these weights are written, and nothing is moved.
  weights: pairs.Matrices | None = None

  def run(
      self, matrices: pairs.Matrices, ok: Bool[Array, '']
  ) -> tuple[pairs.Matrices, Sums]:
    """Pass over the touched latents, block by block, if all is well."""
    latents, model = matrices.decoder.shape
    size = max(8, min(256, _BLOCK_BYTES // (16 * model)))
    words = bits.pack(self.selected)
    running = bits.running(words)
    count = running[-1]
    order = jnp.argsort(-count).astype(jnp.int32)
    # Each number once, also those of no latent.
    behind = latents + jnp.arange(size, dtype=jnp.int32)
    order = jnp.concatenate([order, behind])

    def body(number, carry):
      numbers = jax.lax.dynamic_slice_in_dim(order, number * size, size)
      own = jnp.take(count, numbers, mode='fill', fill_value=0)
      block = _Latents(
          numbers=jnp.where(own > 0, numbers, behind),
          threshold=jnp.take(self.batch.threshold, numbers, mode='clip'),
          count=own,
          words=jnp.take(words, numbers, axis=1, mode='clip'),
          running=jnp.take(running, numbers, axis=1, mode='clip'),
      )
      return self._block(block, *carry)

    none = jnp.zeros_like(self.batch.threshold)
    model = self.batch.inputs.shape[1]
    sums = Sums(none, none, jnp.zeros(model, jnp.float32))
    touched = jnp.sum(count > 0, dtype=jnp.int32)
    blocks = jnp.where(ok, (touched + size - 1) // size, 0)
    return jax.lax.fori_loop(0, blocks, body, (matrices, sums))

  def _block(
      self, block: _Latents, matrices: pairs.Matrices, sums: Sums
  ) -> tuple[pairs.Matrices, Sums]:
    """Update one block's rows in place."""
    own = jax.tree.map(
        lambda x: jnp.take(x, block.numbers, axis=0, mode='clip'),
        matrices if self.weights is None else self.weights,
    )
    found, b_enc, near = self._accumulate(block, own.decoder)
    if self.settings.pre_encoder_bias:
      shift = jnp.sum(b_enc[:, None] * own.encoder, axis=0)
      sums = sums._replace(shift=sums.shift + shift)
      encoder = found.encoder - b_enc[:, None] * self.batch.b_dec[None, :]
      found = found._replace(encoder=encoder)
    if self.weights is None:
      rows = row_update.update(own, found, self.rates, settings=self.settings)
    else:
      rows = own._replace(encoder=found.encoder, decoder=found.decoder)

    def put(whole, rows):
      return whole.at[block.numbers].set(rows, mode='drop', unique_indices=True)

    sums = sums._replace(
        b_enc=put(sums.b_enc, b_enc), near=put(sums.near, near)
    )
    return jax.tree.map(put, matrices, rows), sums

  def _accumulate(
      self, block: _Latents, decoder: Float[Array, 'block target_model']
  ) -> tuple[pairs.Gradients, Float[Array, ' block'], Float[Array, ' block']]:
    """Add up a block's gradients, rank by rank."""
    batch, half = self.batch, self.settings.bandwidth / 2
    latent = jnp.minimum(block.numbers, batch.pre_acts.shape[1] - 1)

    def add(rank, carry):
      found, b_enc, near = carry
      row = bits.find(block.words, block.running, rank)
      row = jnp.minimum(row, len(batch.keep) - 1)
      value = batch.pre_acts[row, latent]
      error = jnp.take(self.errors, row, axis=0)
      slope = jnp.sum(error * decoder, axis=1)
      valid = rank < block.count
      active = valid & (value > block.threshold)
      is_near = valid & (jnp.abs(value - block.threshold) < half)
      on_active = jnp.where(active, slope, 0.0)
      value = jnp.where(active, value, 0.0)
      inputs = jnp.take(batch.inputs, row, axis=0)
      found = pairs.Gradients(
          found.encoder + on_active[:, None] * inputs,
          found.decoder + value[:, None] * error,
      )
      near += jnp.where(is_near, slope, 0.0)
      return found, b_enc + on_active, near

    none = jnp.zeros_like(block.threshold)
    start = pairs.Gradients(
        jnp.zeros((len(none), batch.inputs.shape[1]), jnp.float32),
        jnp.zeros_like(decoder),
    )
    return jax.lax.fori_loop(0, block.count[0], add, (start, none, none))
