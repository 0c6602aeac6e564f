"""A step in place, a block of contiguous latents after another.

Sums over a block's pairs are made, gone by and forgotten before those of the
next one: they stay in the cache, and there is never a gradient of a whole
matrix. So what may keep a step from being taken is looked for beforehand.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import active_pairs, row_gather, unit_norm
from jumprelu.ops import adam as adam_lib

# Latents of a block, at most: many, as they are sorted by frequency within it.
_SIZE = 4096
# Of those, how many are updated together: what a CPU's caches hold.
_TOGETHER = 512

# (decoder, contiguous numbers of latents) -> their sums, and where in the
# matrices' each latent's row is.
AddUp = Callable[
    [Array, Int32[Array, ' size']],
    tuple[active_pairs.GradientSums, Int32[Array, ' size']],
]


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    rates: active_pairs.AdamScalars,
    errors: active_pairs.ReconstructionErrors,
    add_up: AddUp,
    *,
    settings: active_pairs.Settings,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Take a step by what `add_up` gives, if all that goes into it is finite."""
  latents = len(matrices.decoder)
  size = row_gather.divide(latents, _SIZE)
  ok = is_finite(batch, errors)
  matrices, vectors, through = walk(
      matrices,
      batch,
      rates,
      add_up,
      active_pairs.no_vectors(latents),
      size=size,
      blocks=latents // size,
      settings=settings,
      ok=ok,
  )
  found = active_pairs.summarise(batch, vectors, errors, settings=settings)
  return matrices, found._replace(b_dec=found.b_dec - through, ok=ok)


def is_finite(
    batch: active_pairs.Batch, errors: active_pairs.ReconstructionErrors
) -> Bool[Array, '']:
  """Say whether all is finite of which a step is made.

  Weights are seen as well: the encoder's in pre-activations, which decoding
  shows (`pairs.latents`), and the decoder's in errors.
  """
  return active_pairs.all_finite(errors.loss, batch.inputs)


def walk(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    rates: active_pairs.AdamScalars,
    add_up: AddUp,
    vectors: active_pairs.Vectors,
    *,
    size: int,
    blocks: Int32[Array, ''] | int,
    settings: active_pairs.Settings,
    ok: Bool[Array, ''],
) -> tuple[
    active_pairs.Matrices, active_pairs.Vectors, Float[Array, ' target_model']
]:
  """Go through the first blocks; rows may be behind, and stay without `ok`.

  Returns:
    The matrices, `vectors` with those of the blocks, and what of b_dec's
    gradient flows through the encoder.
  """

  def body(number, carry):
    matrices, vectors, through = carry
    first = number * size
    numbers = first + jnp.arange(size, dtype=jnp.int32)
    sums, place = add_up(matrices.decoder, numbers)
    update = functools.partial(
        _update, sums, place, batch, rates, settings=settings, first=first
    )
    matrices, through = update((matrices, through), ok=ok)
    return matrices, row_gather.write(vectors, sums.vectors, number), through

  start = matrices, vectors, jnp.zeros_like(batch.b_dec)
  return jax.lax.fori_loop(0, blocks, body, start)


def _update(
    sums: active_pairs.GradientSums,
    place: Int32[Array, ' size'],
    batch: active_pairs.Batch,
    rates: active_pairs.AdamScalars,
    carry: tuple[active_pairs.Matrices, Float[Array, ' target_model']],
    *,
    settings: active_pairs.Settings,
    first: Int32[Array, ''],
    ok: Bool[Array, ''],
) -> tuple[active_pairs.Matrices, Float[Array, ' target_model']]:
  """Update a block's rows, some together; adds to what flows through them."""
  size = row_gather.divide(len(place), _TOGETHER)

  def body(number, carry):
    matrices, through = carry
    here = functools.partial(
        row_gather.read, start=first + number * size, size=size
    )
    within = functools.partial(row_gather.read, start=number * size, size=size)

    def step():
      old, index = here(matrices), within(place)
      b_enc = within(sums.vectors.b_enc)
      to_encoder = row_gather.take(sums.encoder, index)
      to_decoder = row_gather.take(sums.decoder, index)
      if not settings.pre_encoder_bias:
        new = _step_rows(old, to_encoder, to_decoder, rates, settings)
        return new, through
      # The encoder read inputs - b_dec: both gradients feel it.
      to_encoder -= b_enc[:, None] * batch.b_dec[None, :]
      new = _step_rows(old, to_encoder, to_decoder, rates, settings)
      added = jnp.matmul(
          b_enc, old.encoder, precision=jax.lax.Precision.HIGHEST
      )
      return new, through + added

    # The branch is always taken. Without one XLA's loops read, fused with the
    # writing below, what others are writing, and it copies whole matrices.
    new, through = jax.lax.cond(ok, step, lambda: (here(matrices), through))
    return row_gather.write(matrices, new, first // size + number), through

  turns = jnp.where(ok, len(place) // size, 0)
  return jax.lax.fori_loop(0, turns, body, carry)


def _step_rows(
    old: active_pairs.Matrices,
    to_encoder: Float[Array, 'rows model'],
    to_decoder: Float[Array, 'rows target_model'],
    rates: active_pairs.AdamScalars,
    settings: active_pairs.Settings,
) -> active_pairs.Matrices:
  """Step rows by their gradients."""
  adam = functools.partial(
      adam_lib.adam,
      learning_rate=rates.learning_rate,
      correction=rates.correction,
      b2=settings.b2,
      eps=settings.eps,
  )
  behind = (rates.clock - old.touched).astype(jnp.float32)[:, None]
  left = adam_lib.decay(behind, b2=settings.b2)
  to_decoder = unit_norm.project(to_decoder, old.decoder)
  encoder, nu_encoder = adam(old.encoder, left * old.nu_encoder, to_encoder)
  decoder, nu_decoder = adam(old.decoder, left * old.nu_decoder, to_decoder)
  return active_pairs.Matrices(
      encoder=encoder,
      decoder=unit_norm.unit(decoder),
      nu_encoder=nu_encoder,
      nu_decoder=nu_decoder,
      touched=jnp.full_like(old.touched, rates.clock + 1),
  )
