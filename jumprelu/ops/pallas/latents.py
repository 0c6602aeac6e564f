"""The backward kernels: a program a latent goes through the pairs of its own.

First `slopes`, which tells all but the matrices' gradients, and with that
whether a step is to be taken; then `sums` gives those, or `update.py` takes
the step by them without writing them down.
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
  """Pairs by latent, and by row within one."""

  # Where each latent's pairs start, and where the last one's end.
  start: Int32[Array, ' latents_and_one']
  row: Int32[Array, ' pairs']
  pre_act: Float[Array, ' pairs']


class Weights(NamedTuple):
  """What a pair adds to its latent's gradients: 0 where it is not active."""

  # Times the inputs, to the encoder.
  slope: Float[Array, ' pairs']
  # Times the errors, to the decoder.
  value: Float[Array, ' pairs']


def sort(
    index: Int32[Array, 'batch cap'],
    count: Int32[Array, ' batch'],
    pre_act: Float[Array, 'batch cap'],
    *,
    latents: int,
) -> Sorted:
  """Sort pairs by latent; what is behind a row's count comes last."""
  cap = index.shape[1]
  there = jnp.arange(cap, dtype=jnp.int32)[None, :] < count[:, None]
  key = jnp.where(there, index, latents).reshape(-1)
  order = jnp.argsort(key, stable=True).astype(jnp.int32)
  numbers = jnp.arange(latents + 1, dtype=jnp.int32)
  # Unrolled: the host would look at each turn of a loop.
  start = jnp.searchsorted(key[order], numbers, method='scan_unrolled')
  start = start.astype(jnp.int32)
  return Sorted(start, order // cap, pre_act.reshape(-1)[order])


def _slopes_kernel(*refs: Any, half: float) -> None:
  """Compute one latent's slopes, and add up what is no matrix's."""
  start, rows, pre_acts, thresholds, errors, decoder = refs[:6]
  slopes, values, *vectors = refs[6:]
  latent = pl.program_id(0)
  first, last = start[latent], start[latent + 1]
  threshold = thresholds[latent]
  weights = calls.read(decoder, latent)

  def one(i, there, total):
    value = pre_acts[i]
    slope = calls.dot(calls.read(errors, rows[i]), weights)
    active = value > threshold
    slopes[i] = jnp.where(active, slope, 0.0)
    values[i] = jnp.where(active, value, 0.0)
    active = there & active
    near = there & (jnp.abs(value - threshold) < half)
    return active_pairs.Vectors(
        total.b_enc + jnp.where(active, slope, 0.0),
        total.near_slopes + jnp.where(near, slope, 0.0),
        total.fired + active.astype(jnp.int32),
        total.near + near.astype(jnp.int32),
    )

  none, no = jnp.float32(0), jnp.int32(0)
  total = calls.fold(first, last, one, active_pairs.Vectors(none, none, no, no))
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
  """Weigh each pair, and add up over each latent's pairs."""
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
  found = call(*by_latent, batch.threshold, errors, decoder)
  return Weights(*found[:2]), active_pairs.Vectors(*found[2:])


def _sums_kernel(*refs: Any) -> None:
  start, rows, slope, value, inputs, errors, to_encoder, to_decoder = refs
  latent = pl.program_id(0)
  add = functools.partial(
      calls.weighted_sum, start[latent], start[latent + 1], index=rows
  )
  calls.write(to_encoder, latent, add(weight=slope, matrix=inputs))
  calls.write(to_decoder, latent, add(weight=value, matrix=errors))


def sums(
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    by_latent: Sorted,
    weights: Weights,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, 'latents model'], Float[Array, 'latents target_model']]:
  """Add up the matrices' gradients, the encoder's without the bias."""
  latents = len(batch.threshold)
  float32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  call = calls.call(
      _sums_kernel,
      latents,
      [float32((latents, x.shape[1])) for x in (batch.inputs, errors)],
      interpret=interpret,
  )
  start, row, _ = by_latent
  return tuple(call(start, row, *weights, batch.inputs, errors))
