"""A step in place, one block of contiguous latents after another.

Each block's sums are computed, applied and dropped before the next block starts.
They therefore stay in the cache, and the gradient of a whole matrix never
exists. Whether a step is finite must be known before the first block.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import active_pairs, row_gather, unit_norm
from jumprelu.ops import adam as adam_lib

# The largest number of latents of a block. It is large because latents are sorted
# by frequency within a block.
_SIZE = 4096
# The largest number of rows that are updated together: a CPU's caches hold them.
_ROWS_PER_UPDATE = 512

# (decoder, contiguous numbers of latents) -> their sums, and the place of each
# latent's row in the sums for the matrices.
AddUp = Callable[
    [Array, Int32[Array, ' size']],
    tuple[active_pairs.GradientSums, Int32[Array, ' size']],
]


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    errors: active_pairs.ReconstructionErrors,
    add_up: AddUp,
    *,
    settings: active_pairs.Settings,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Returns the matrices after a step, and its result; skips a non-finite step."""
  latents = len(matrices.decoder)
  size = row_gather.largest_divisor(latents, _SIZE)
  ok = is_finite(batch, errors)
  matrices, vectors, through_encoder = walk(
      matrices,
      batch,
      scalars,
      add_up,
      active_pairs.no_vectors(latents),
      size=size,
      blocks=latents // size,
      settings=settings,
      ok=ok,
  )
  result = active_pairs.summarise(batch, vectors, errors, settings=settings)
  return matrices, result._replace(b_dec=result.b_dec - through_encoder, ok=ok)


def is_finite(
    batch: active_pairs.Batch, errors: active_pairs.ReconstructionErrors
) -> Bool[Array, '']:
  """Returns whether the step may be taken: loss and inputs are finite.

  Non-finite weights make the loss non-finite: those of the encoder by the
  pre-activations (`active_pairs.active`), those of the decoder by the errors.
  """
  return active_pairs.all_finite(errors.loss, batch.inputs)


def walk(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
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
  """Updates the rows of the first `blocks` blocks, if `ok`.

  Second moments of rows may have missed the decay of earlier steps.

  Returns:
    The matrices, `vectors` with the sums of these blocks, and the part of the
    gradient of b_dec that flows through the encoder.
  """

  def body(number, carry):
    matrices, vectors, through_encoder = carry
    first = number * size
    numbers = first + jnp.arange(size, dtype=jnp.int32)
    sums, place = add_up(matrices.decoder, numbers)
    update = functools.partial(
        _update, sums, place, batch, scalars, settings=settings, first=first
    )
    matrices, through_encoder = update((matrices, through_encoder), ok=ok)
    return (
        matrices,
        row_gather.write(vectors, sums.vectors, number),
        through_encoder,
    )

  start = matrices, vectors, jnp.zeros_like(batch.b_dec)
  return jax.lax.fori_loop(0, blocks, body, start)


def _update(
    sums: active_pairs.GradientSums,
    place: Int32[Array, ' size'],
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    carry: tuple[active_pairs.Matrices, Float[Array, ' target_model']],
    *,
    settings: active_pairs.Settings,
    first: Int32[Array, ''],
    ok: Bool[Array, ''],
) -> tuple[active_pairs.Matrices, Float[Array, ' target_model']]:
  """Updates a block's rows, and adds to the gradient through the encoder."""
  size = row_gather.largest_divisor(len(place), _ROWS_PER_UPDATE)

  def body(number, carry):
    matrices, through_encoder = carry
    read_matrices = functools.partial(
        row_gather.read, start=first + number * size, size=size
    )
    read_block = functools.partial(
        row_gather.read, start=number * size, size=size
    )

    def step():
      old, index = read_matrices(matrices), read_block(place)
      b_enc = read_block(sums.vectors.b_enc)
      to_encoder = row_gather.gather(sums.encoder, index)
      to_decoder = row_gather.gather(sums.decoder, index)
      if not settings.pre_encoder_bias:
        new = _step_rows(old, to_encoder, to_decoder, scalars, settings)
        return new, through_encoder
      # The encoder's input was inputs - b_dec, so both gradients change.
      to_encoder -= b_enc[:, None] * batch.b_dec[None, :]
      new = _step_rows(old, to_encoder, to_decoder, scalars, settings)
      added = jnp.matmul(
          b_enc, old.encoder, precision=jax.lax.Precision.HIGHEST
      )
      return new, through_encoder + added

    # The branch is always taken. Without it XLA would fuse reads with the write
    # below, and would copy whole matrices to keep them apart.
    new, through_encoder = jax.lax.cond(
        ok, step, lambda: (read_matrices(matrices), through_encoder)
    )
    return (
        row_gather.write(matrices, new, first // size + number),
        through_encoder,
    )

  iterations = jnp.where(ok, len(place) // size, 0)
  return jax.lax.fori_loop(0, iterations, body, carry)


def _step_rows(
    old: active_pairs.Matrices,
    to_encoder: Float[Array, 'rows model'],
    to_decoder: Float[Array, 'rows target_model'],
    scalars: active_pairs.AdamScalars,
    settings: active_pairs.Settings,
) -> active_pairs.Matrices:
  """Returns rows after an update by their gradients."""
  adam = functools.partial(
      adam_lib.adam,
      learning_rate=scalars.learning_rate,
      correction=scalars.correction,
      b2=settings.b2,
      eps=settings.eps,
  )
  missed = (scalars.clock - old.touched).astype(jnp.float32)[:, None]
  factor = adam_lib.decay(missed, b2=settings.b2)
  to_decoder = unit_norm.project(to_decoder, old.decoder)
  encoder, nu_encoder = adam(old.encoder, factor * old.nu_encoder, to_encoder)
  decoder, nu_decoder = adam(old.decoder, factor * old.nu_decoder, to_decoder)
  return active_pairs.Matrices(
      encoder=encoder,
      decoder=unit_norm.unit(decoder),
      nu_encoder=nu_encoder,
      nu_decoder=nu_decoder,
      touched=jnp.full_like(old.touched, scalars.clock + 1),
  )
