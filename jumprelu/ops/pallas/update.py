"""The kernel of the update: one program per latent sums and applies gradients.

The weight rows of a latent without selected pairs are not updated. Their second
moments decay later: when the latent next has pairs, or at the end of the
compiled call, which takes several steps.
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


def _kernel(*refs: Any, b2: float, eps: float, clip: float) -> None:
  """Updates one latent's rows of both matrices, if it has selected pairs.

  `numbers` are the learning rate, Adam's correction, and 1 if the step may be
  taken, else 0.
  """
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
        clip=clip,
        learning_rate=numbers[0],
        correction=numbers[1],
    )
    # `shift` is b_dec if the encoder's input was inputs - b_dec, and 0 if it
    # was the inputs.
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
    clip: float,
    learning_rate: Any,
    **numbers: Any,
) -> tuple[calls.Tiles, calls.Tiles]:
  """Returns `adam.adam` of tiles, after `nu` is multiplied by `factor`."""
  rate = {'learning_rate': learning_rate}
  if clip:
    # The tiles of a row share their root mean square: first, the steps at a
    # learning rate of 1 from weights of 0.
    steps = tuple(
        -adam_lib.adam(jnp.zeros_like(n), factor * n, g, learning_rate=1.0,
                       **numbers)[0]
        for n, g in zip(nu, gradient, strict=True)
    )  # fmt: skip
    size = sum(x.size for x in steps)
    size = jnp.sqrt(calls.dot(steps, steps) / size)
    rate = {'learning_rate': learning_rate / jnp.maximum(1.0, size / clip)}
  new = [
      adam_lib.adam(w, factor * n, g, **rate, **numbers)
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
  """Returns the matrices after a step in place; unchanged if not `ok`.

  Args:
    matrices: The matrices before the step.
    batch: The batch.
    errors: The scaled errors of its reconstruction.
    by_latent: The selected pairs.
    weights: The weights of these pairs.
    b_enc: The gradient of b_enc.
    scalars: The numbers of this step.
    settings: The constants of the run.
    ok: Whether the matrices may be updated.
    interpret: Whether the kernel is interpreted instead of compiled.
  """
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
  # Each updated array is an operand and a result, which share memory.
  order = ('encoder', 'decoder', 'nu_encoder', 'nu_decoder', 'touched')
  updated = [getattr(matrices, name) for name in order]
  call = calls.call(
      functools.partial(
          _kernel, b2=settings.b2, eps=settings.eps, clip=settings.clip
      ),
      len(batch.threshold),
      [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in updated],
      interpret=interpret,
      aliases={len(operands) + i: i for i in range(len(order))},
  )
  results = call(*operands, *updated)
  return active_pairs.Matrices(**dict(zip(order, results, strict=True)))
