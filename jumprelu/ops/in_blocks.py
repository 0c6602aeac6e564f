"""A step in place, one block of contiguous latents after another.

Each block's sums over its pairs are computed, applied and dropped before the
next block starts. They therefore stay in the cache, and the gradient of a whole
matrix is never in memory. The check that the step is finite must therefore be
complete before the first block is updated.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import active_pairs, row_gather, unit_norm
from jumprelu.ops import adam as adam_lib

# The largest number of latents of a block. It is large because `latent_major`
# sorts the latents of a block by frequency, which saves more work the more
# latents are sorted.
_SIZE = 4096
# The largest number of latents whose rows are updated together. It is small
# enough that a CPU's caches hold the rows.
_ROWS_PER_UPDATE = 512

# A function (decoder, numbers of contiguous latents) -> (sums over the pairs of
# these latents, places). Place i is the row of the sums for the matrices that
# belongs to the i-th latent.
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
  """Returns the matrices after a step in place, and the step's result.

  A non-finite step is skipped.

  Args:
    matrices: The matrices before the step.
    batch: The batch.
    scalars: The numbers of this step.
    errors: The errors of the batch's reconstruction.
    add_up: Returns the sums of a block of latents.
    settings: The constants of the run.
  """
  latents = len(matrices.decoder)
  size = row_gather.largest_divisor(latents, _SIZE)
  ok = is_finite(batch, errors, settings)
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
    batch: active_pairs.Batch,
    errors: active_pairs.ReconstructionErrors,
    settings: active_pairs.Settings,
) -> Bool[Array, '']:
  """Returns whether the step may be taken: loss and inputs are finite.

  The weights need no check. A non-finite weight of the encoder makes
  pre-activations non-finite, which count as active (`active_pairs.active`).
  They and the non-finite decoder rows of active latents make the loss
  non-finite. The penalty must be finite even if all latents are active, because
  L0 is not known yet.
  """
  penalty = active_pairs.largest_penalty(batch, settings)
  return active_pairs.all_finite(errors.loss, batch.inputs) & jnp.isfinite(
      penalty
  )


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

  Rows whose second moments missed the decay of earlier steps are decayed first.

  Args:
    matrices: The matrices before the step.
    batch: The batch.
    scalars: The numbers of this step.
    add_up: Returns the sums of a block of latents.
    vectors: The sums of all latents, to be overwritten block by block.
    size: The number of latents of a block.
    blocks: The number of blocks.
    settings: The constants of the run.
    ok: Whether the matrices may be updated.

  Returns:
    The matrices, `vectors` with the sums of these blocks even if not `ok`, and
    the product of the encoder and the gradient of b_enc. The latter is zero
    without a pre-encoder bias or if not `ok`.
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
  """Updates the rows of the block that starts at latent `first`, if `ok`.

  `sums` and `place` are the results of an `AddUp` for the block. `carry` and
  the result are the matrices, and the product of the encoder and the gradient
  of b_enc over the blocks so far.
  """
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
      # The encoder's input was inputs - b_dec, which changes the gradients of
      # the encoder and of b_dec.
      to_encoder -= b_enc[:, None] * batch.b_dec[None, :]
      new = _step_rows(old, to_encoder, to_decoder, scalars, settings)
      added = jnp.matmul(
          b_enc, old.encoder, precision=jax.lax.Precision.HIGHEST
      )
      return new, through_encoder + added

    # `ok` is true here, because the loop has no iterations otherwise. Without
    # the branch XLA would fuse the reads with the write below, and would copy
    # whole matrices to keep them apart.
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
  """Returns rows of the matrices after an update by their gradients.

  The second moments first decay by the steps that the rows have missed. The
  decoder's rows keep unit norm.
  """
  adam = functools.partial(
      adam_lib.adam,
      learning_rate=scalars.learning_rate,
      correction=scalars.correction,
      b2=settings.b2,
      eps=settings.eps,
      clip=settings.clip,
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
