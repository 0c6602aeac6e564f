"""The auxiliary term of dead latents (AuxK), as a second set of pairs.

  coefficient * mean over rows of ||missing - sum of pre_act decoder row||^2

The sum is over the pairs that the SAE chooses among its dead latents, and
missing is minus the error of the reconstruction, without gradients (`saes.topk`
has the references). The gradients of the term are those of a batch whose
targets are `missing`, without b_dec in the reconstruction. They are added to
those of the reconstruction before the update.
"""

import functools

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.ops import active_pairs, in_blocks, row_gather, sparse


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    dead_pre_acts: Float[Array, 'batch latents'],
    scalars: active_pairs.AdamScalars,
    *,
    coefficient: float,
    settings: active_pairs.Settings,
    cap: int,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Returns both matrices after a step in place, and the step's result.

  A non-finite step is skipped.

  Args:
    matrices: The matrices before the step.
    batch: The batch, with the pairs of the reconstruction.
    dead_pre_acts: The pre-activations of the pairs among dead latents. Those of
      all other pairs are replaced as in `batch.pre_acts`.
    scalars: The numbers of this step.
    coefficient: The weight of the term.
    settings: The constants of the run.
    cap: As in `sparse.step`, for the pairs of the reconstruction.
  """
  errors, add_up, overflow = sparse.prepare(
      matrices.decoder, batch, settings=settings, cap=cap
  )
  dead = _as_batch(batch, errors, dead_pre_acts)
  # Without a limit, because dense products would be over all latents, and only
  # few are dead.
  dead_errors, add_up_dead, _ = sparse.prepare(
      matrices.decoder, dead, settings=settings, cap=None
  )
  loss = coefficient * dead_errors.loss

  def add_up_both(decoder, numbers):
    sums = _in_order(*add_up(decoder, numbers))
    dead_sums = _in_order(*add_up_dead(decoder, numbers))
    place = jnp.arange(len(numbers), dtype=jnp.int32)
    return _add(sums, dead_sums, coefficient), place

  # A non-finite term makes the loss non-finite, which skips the step.
  checked = jnp.where(jnp.isfinite(loss), errors.loss, jnp.nan)
  matrices, result = in_blocks.step(
      matrices,
      batch,
      scalars,
      errors._replace(loss=checked),
      add_up_both,
      settings=settings,
  )
  return matrices, result._replace(overflow=overflow, auxiliary=loss)


def _as_batch(
    batch: active_pairs.Batch,
    errors: active_pairs.ReconstructionErrors,
    pre_acts: Float[Array, 'batch latents'],
) -> active_pairs.Batch:
  """Returns the batch whose reconstruction error is that of the term."""
  rows = active_pairs.row_count(batch.keep)
  return batch._replace(
      pre_acts=pre_acts,
      targets=-errors.scaled * (rows / 2.0),
      b_dec=jnp.zeros_like(batch.b_dec),
  )


def _add(
    sums: active_pairs.GradientSums,
    dead: active_pairs.GradientSums,
    coefficient: float,
) -> active_pairs.GradientSums:
  """Returns `sums` plus the weighted gradients of `dead`.

  The numbers of active pairs are those of `sums`.
  """
  b_enc = sums.vectors.b_enc + coefficient * dead.vectors.b_enc
  return active_pairs.GradientSums(
      encoder=sums.encoder + coefficient * dead.encoder,
      decoder=sums.decoder + coefficient * dead.decoder,
      vectors=sums.vectors._replace(b_enc=b_enc),
  )


def _in_order(
    sums: active_pairs.GradientSums, place: Array
) -> active_pairs.GradientSums:
  """Returns the sums with the rows for the matrices in the latents' order."""
  gather = functools.partial(row_gather.gather, index=place)
  return sums._replace(
      encoder=gather(sums.encoder), decoder=gather(sums.decoder)
  )
