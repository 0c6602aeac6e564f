"""The kernel of the slopes: one program per latent loops over its pairs.

It computes the weights from which the gradients of the matrices are summed, and
the gradients of the vectors. The kernel of `update.py` later computes and
applies the gradients of the matrices, without writing them to memory.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import active_pairs
from jumprelu.ops.pallas import calls


class Sorted(NamedTuple):
  """Pairs in the order of latents, and of rows within a latent."""

  # The index of each latent's first pair. The additional last entry is the
  # number of pairs.
  start: Int32[Array, ' latents_and_one']
  # Row and pre-activation of each pair. Entries beyond the last pair are
  # arbitrary, because the arrays have room for `cap` pairs per row.
  row: Int32[Array, ' pairs']
  pre_act: Float[Array, ' pairs']


class Weights(NamedTuple):
  """The weights of pairs in their latents' gradients; 0 for inactive pairs."""

  # The weight of the inputs in the gradient of the encoder.
  slope: Float[Array, ' pairs']
  # The weight of the errors in the gradient of the decoder.
  value: Float[Array, ' pairs']


def sort(
    index: Int32[Array, 'batch cap'],
    count: Int32[Array, ' batch'],
    pre_act: Float[Array, 'batch cap'],
    *,
    latents: int,
) -> Sorted:
  """Returns the selected pairs, sorted by latent.

  Args:
    index: The selected latents of each row.
    count: The number of valid entries in each row of `index`.
    pre_act: The pre-activation of each entry of `index`.
    latents: The number of latents.
  """
  cap = index.shape[1]
  valid = jnp.arange(cap, dtype=jnp.int32)[None, :] < count[:, None]
  # Invalid entries are sorted after those of the last latent.
  key = jnp.where(valid, index, latents).reshape(-1)
  order = jnp.argsort(key, stable=True).astype(jnp.int32)
  numbers = jnp.arange(latents + 1, dtype=jnp.int32)
  # The search is unrolled, because the host would wait for the GPU in each
  # iteration of a loop.
  start = jnp.searchsorted(key[order], numbers, method='scan_unrolled')
  start = start.astype(jnp.int32)
  return Sorted(start, order // cap, pre_act.reshape(-1)[order])


def _slopes_kernel(*refs: Any, half: float) -> None:
  """Writes the weights of one latent's pairs, and its sums for the vectors."""
  starts, rows, pre_acts, thresholds, errors, decoder = refs[:6]
  slopes, values, *vectors = refs[6:]
  latent = pl.program_id(0)
  first, last = starts[latent], starts[latent + 1]
  threshold = thresholds[latent]
  weights = calls.read(decoder, latent)

  def add_pair(i, valid, total):
    value = pre_acts[i]
    slope = calls.dot(calls.read(errors, rows[i]), weights)
    active = value > threshold
    slopes[i] = jnp.where(active, slope, 0.0)
    values[i] = jnp.where(active, value, 0.0)
    active = valid & active
    near = valid & (jnp.abs(value - threshold) < half)
    return active_pairs.Vectors(
        total.b_enc + jnp.where(active, slope, 0.0),
        total.near_slopes + jnp.where(near, slope, 0.0),
        total.fired + active.astype(jnp.int32),
        total.near + near.astype(jnp.int32),
    )

  zero, zero_count = jnp.float32(0), jnp.int32(0)
  start = active_pairs.Vectors(zero, zero, zero_count, zero_count)
  total = calls.fold(first, last, add_pair, start)
  for ref, value in zip(vectors, total, strict=True):
    ref[latent] = value


def slopes(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    decoder: Float[Array, 'latents target_model'],
    by_latent: Sorted,
    *,
    bandwidth: float,
    interpret: bool = False,
) -> tuple[Weights, active_pairs.Vectors]:
  """Returns the weights of all pairs, and sums over each latent's pairs.

  `errors` are the scaled ones (`ReconstructionErrors.scaled`).
  """
  latents, pair = batch.threshold.shape, by_latent.row.shape
  float32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  int32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
  results = [float32(pair)] * 2 + [float32(latents)] * 2 + [int32(latents)] * 2
  call = calls.call(
      functools.partial(_slopes_kernel, half=bandwidth / 2),
      len(decoder),
      results,
      interpret=interpret,
  )
  results = call(*by_latent, batch.threshold, errors, decoder)
  return Weights(*results[:2]), active_pairs.Vectors(*results[2:])
