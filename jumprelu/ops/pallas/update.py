"""The update kernel: one program per latent sums and applies its gradients.

Rows without pairs are not touched. Their second moments catch up with the next
pairs, or at the end of a segment.
"""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float
from jumprelu.ops import active_pairs
from jumprelu.ops import adam as adam_lib
from jumprelu.ops.pallas import calls
from jumprelu.ops.pallas import latents as latents_lib


def _kernel(*refs: Any, b2: float, eps: float) -> None:
  """Updates one latent's rows of both matrices."""
  start, rows, slope, value, inputs, errors, b_enc, shift = refs[:8]
  numbers, clock, *old = refs[8:15]
  encoder, decoder, nu_encoder, nu_decoder, touched = refs[15:]
  latent = pl.program_id(0)
  first, last = start[latent], start[latent + 1]
  now = clock[0]

  @pl.when((last > first) & (numbers[2] > 0))
  def _():
    add = functools.partial(calls.weighted_sum, first, last, index=rows)
    missed = (now - old[4][latent]).astype(jnp.float32)
    adam = functools.partial(
        _adam,
        factor=adam_lib.decay(missed, b2=b2),
        b2=b2,
        eps=eps,
        learning_rate=numbers[0],
        correction=numbers[1],
    )
    # `shift` is b_dec if it was subtracted from the inputs, else 0.
    to_encoder = add(weight=slope, matrix=inputs)
    to_encoder = calls.axpy(-b_enc[latent], calls.read(shift, 0), to_encoder)
    weights = calls.read(old[0], latent)
    new, nu = adam(weights, calls.read(old[2], latent), to_encoder)
    calls.write(encoder, latent, new)
    calls.write(nu_encoder, latent, nu)
    weights = calls.read(old[1], latent)
    to_decoder = add(weight=value, matrix=errors)
    along = calls.dot(to_decoder, weights)
    to_decoder = calls.axpy(-along, weights, to_decoder)
    new, nu = adam(weights, calls.read(old[3], latent), to_decoder)
    norm = jnp.sqrt(calls.dot(new, new))
    scale = 1.0 / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)
    calls.write(decoder, latent, tuple(scale * x for x in new))
    calls.write(nu_decoder, latent, nu)
    touched[latent] = now + 1


def _adam(
    weights: calls.Tiles,
    nu: calls.Tiles,
    gradient: calls.Tiles,
    *,
    factor: Any,
    **numbers: Any,
) -> tuple[calls.Tiles, calls.Tiles]:
  """Returns `adam.adam` of tiles, with `nu` times `factor` first."""
  new = [
      adam_lib.adam(w, factor * n, g, **numbers)
      for w, n, g in zip(weights, nu, gradient, strict=True)
  ]
  return tuple(w for w, _ in new), tuple(n for _, n in new)


def update(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    errors: Float[Array, 'batch target_model'],
    by_latent: latents_lib.Sorted,
    weights: latents_lib.Weights,
    *,
    b_enc: Float[Array, ' latents'],
    scalars: active_pairs.AdamScalars,
    settings: active_pairs.Settings,
    ok: Bool[Array, ''],
    interpret: bool = False,
) -> active_pairs.Matrices:
  """Returns the matrices after a step on rows with pairs, in place, if `ok`."""
  shift = jnp.zeros_like(batch.inputs[:1])
  if settings.pre_encoder_bias:
    shift += batch.b_dec[None, :]
  numbers = jnp.stack(
      [scalars.learning_rate, scalars.correction, ok.astype(jnp.float32)]
  )
  operands = (
      *(by_latent.start, by_latent.row, *weights, batch.inputs, errors),
      *(b_enc, shift, numbers, scalars.clock[None]),
  )
  # The updated arrays are operands and results that share memory.
  order = ('encoder', 'decoder', 'nu_encoder', 'nu_decoder', 'touched')
  updated = [getattr(matrices, name) for name in order]
  call = calls.call(
      functools.partial(_kernel, b2=settings.b2, eps=settings.eps),
      len(batch.threshold),
      [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in updated],
      interpret=interpret,
      aliases={len(operands) + i: i for i in range(len(order))},
  )
  results = call(*operands, *updated)
  return active_pairs.Matrices(**dict(zip(order, results, strict=True)))
