"""The backward kernel: a program a latent adds up the gradients of its rows."""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import latent_major, pairs
from jumprelu.ops.pallas import calls


class Sorted(NamedTuple):
  """Pairs by latent, and by row within one."""

  # Where each latent's pairs start, and where the last one's end.
  start: Int32[Array, ' latents_and_one']
  row: Int32[Array, ' pairs']
  pre_act: Float[Array, ' pairs']


class _Total(NamedTuple):
  """What has been added up for one latent; as `latent_major.Sums`."""

  encoder: calls.Tiles
  decoder: calls.Tiles
  b_enc: Any
  near_slopes: Any
  fired: Any
  near: Any


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
  start = jnp.searchsorted(key[order], numbers).astype(jnp.int32)
  return Sorted(start, order // cap, pre_act.reshape(-1)[order])


def _kernel(*refs: Any, half: float) -> None:
  """Add up one latent's gradients, in registers."""
  start, rows, pre_acts, thresholds, errors, inputs, decoder = refs[:7]
  to_encoder, to_decoder, b_enc, near_slopes, fired, near = refs[7:]
  latent = pl.program_id(0)
  first, last = start[latent], start[latent + 1]
  threshold = thresholds[latent]
  weights = calls.read(decoder, latent)

  def one(i, total):
    # Behind the last pair it comes again, and counts nothing.
    there, i = i < last, jnp.minimum(i, last - 1)
    row, value = rows[i], pre_acts[i]
    error = calls.read(errors, row)
    slope = calls.dot(error, weights)
    active = there & (value > threshold)
    is_near = there & (jnp.abs(value - threshold) < half)
    on_active = jnp.where(active, slope, 0.0)
    on_near = jnp.where(is_near, slope, jnp.where(there, 0.0 * value, 0.0))
    return _Total(
        calls.axpy(on_active, calls.read(inputs, row), total.encoder),
        calls.axpy(jnp.where(active, value, 0.0), error, total.decoder),
        total.b_enc + on_active,
        # What is not a number is seen here: nothing else of it counts.
        total.near_slopes + on_near,
        total.fired + active.astype(jnp.int32),
        total.near + is_near.astype(jnp.int32),
    )

  def add(step, total):
    for k in range(calls.AT_ONCE):
      total = one(first + step * calls.AT_ONCE + k, total)
    return total

  none, no = jnp.float32(0), jnp.int32(0)
  total = _Total(
      calls.zeros(inputs.shape[1]), calls.zeros(errors.shape[1]),
      none, none, no, no,
  )  # fmt: skip
  steps = (last - first + calls.AT_ONCE - 1) // calls.AT_ONCE
  total = jax.lax.fori_loop(0, steps, add, total)
  calls.write(to_encoder, latent, total.encoder)
  calls.write(to_decoder, latent, total.decoder)
  b_enc[latent], near_slopes[latent] = total.b_enc, total.near_slopes
  fired[latent], near[latent] = total.fired, total.near


def sums(
    batch: pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    decoder: Float[Array, 'latents target_model'],
    by_latent: Sorted,
    *,
    bandwidth: float,
    interpret: bool = False,
) -> latent_major.Sums:
  """Add up gradients over each latent's pairs."""
  shapes = [(len(decoder), batch.inputs.shape[1]), decoder.shape]
  shapes += [batch.threshold.shape] * 4
  kinds = [jnp.float32] * 4 + [jnp.int32] * 2
  call = calls.call(
      functools.partial(_kernel, half=bandwidth / 2),
      len(decoder),
      [jax.ShapeDtypeStruct(*x) for x in zip(shapes, kinds, strict=True)],
      interpret=interpret,
  )
  found = call(*by_latent, batch.threshold, errors, batch.inputs, decoder)
  return latent_major.Sums(*found)
