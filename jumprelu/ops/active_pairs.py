"""Inputs, results and formulas that the exact fast steps of a JumpReLU share.

A step trains one SAE on one batch. `dense`, `sparse`, `native` and `pallas`
compute the same gradients in different ways from the same pre-activations.

Only some pairs (row, latent) contribute to the gradients. A pair contributes if
its pre-activation is above the threshold or inside the kernel around it:

  active:     pre_act > threshold
  near:       |pre_act - threshold| < bandwidth / 2

The loss is Gemma Scope's (arXiv 2408.05147, equation 4) with the derivatives of
`pseudo_derivatives.py`. Its gradients need two quantities:

  g = 2 (reconstruction - targets) / rows   for each row
  s = <g, decoder row>                      for each pair; the slope of the pair

The gradients of one latent's parameters are then

  decoder    sum over active of pre_act g
  encoder    sum over active of s x
  b_enc      sum over active of s
  threshold  -sum over near of (threshold s + penalty_slope / rows) / bandwidth

Here x is the encoder's input: inputs - b_dec with a pre-encoder bias, and the
inputs without one. penalty_slope is the derivative of the penalty with respect
to the mean L0.

The gradient of b_dec is the sum of g over rows. With a pre-encoder bias, the
product of the encoder and the gradient of b_enc is subtracted from it.

The mask `keep` excludes rows from all sums: `rows` is the number of kept rows,
and the other rows have no pairs and no error.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import counts


class Settings(NamedTuple):
  """The constants of a run; hashable, so that they can be static under jit."""

  bandwidth: float
  # Whether the encoder sees the inputs minus b_dec.
  pre_encoder_bias: bool
  # Whether the penalty is coefficient * (L0 / target - 1)^2, not * L0.
  target_l0: bool
  # Adam's decay and epsilon; beta1 is 0.
  b2: float = 0.999
  eps: float = 1e-8
  # The largest root mean square of a row's update, divided by the learning
  # rate; 0 for no limit.
  clip: float = 0.0


class Batch(NamedTuple):
  """One batch, its pre-activations, and the other inputs except the matrices.

  `inputs` are those of the SAE, before b_dec is subtracted.
  """

  pre_acts: Float[Array, 'batch latents']
  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  threshold: Float[Array, ' latents']
  b_dec: Float[Array, ' target_model']
  # The weight of the penalty at this step, and the L0 that it aims at. The
  # latter is used only if `Settings.target_l0` is set.
  coefficient: Float[Array, '']
  target_l0: Float[Array, '']
  # The encoder's bias, if a step may compute the pre-activations itself, in
  # float32, from it, the inputs and the encoder. A step that does so does not
  # use `pre_acts`, which XLA then does not compute.
  b_enc: Float[Array, ' latents'] | None = None


class AdamScalars(NamedTuple):
  """The scalars that Adam needs and that differ between steps."""

  learning_rate: Float[Array, '']
  # 1 - b2^t, where t is the number of this step in the run, from 1.
  correction: Float[Array, '']
  # The number of earlier steps of this segment that were not skipped. Second
  # moments decay once in each of them.
  clock: Int32[Array, '']


class Matrices(NamedTuple):
  """Weights and second moments, with one row for each latent.

  The encoder is therefore transposed. A step may leave out the rows of latents
  without a gradient. `touched` records up to when such a row has decayed.
  """

  encoder: Float[Array, 'latents model']
  decoder: Float[Array, 'latents target_model']
  nu_encoder: Float[Array, 'latents model']
  nu_decoder: Float[Array, 'latents target_model']
  # The value of `AdamScalars.clock` up to which a row's moments have decayed.
  touched: Int32[Array, ' latents']


class StepResult(NamedTuple):
  """The results of a step besides the matrices."""

  # The first three are gradients. That of the threshold is with respect to the
  # threshold itself, not to its logarithm.
  b_enc: Float[Array, ' latents']
  b_dec: Float[Array, ' target_model']
  threshold: Float[Array, ' latents']
  # The number of kept rows on which each latent was active.
  fired: Int32[Array, ' latents']
  # Mean squared norm of the error over kept rows.
  reconstruction: Float[Array, '']
  # Mean number of active latents over kept rows.
  l0: Float[Array, '']
  # Whether the step was finite. If it was not, a step in place has left the
  # matrices unchanged.
  ok: Bool[Array, '']
  # The number of rows with more selected latents than a sparse step has room
  # for, or for which a native step computed more than a quarter of the
  # pre-activations in float32.
  overflow: Int32[Array, ''] | int = 0
  # The weighted auxiliary term of the loss (`ops.auxiliary`).
  auxiliary: Float[Array, ''] | float = 0.0


# The gradients of the encoder (in the layout of a checkpoint, [model, latents])
# and of the decoder, and the other results.
Gradients = tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    StepResult,
]


class Vectors(NamedTuple):
  """Sums over the pairs of each latent."""

  # The sum of slopes over active pairs, which is the gradient of b_enc, and
  # their sum over near pairs.
  b_enc: Float[Array, ' latents']
  near_slopes: Float[Array, ' latents']
  # The number of active pairs and of near pairs.
  fired: Int32[Array, ' latents']
  near: Int32[Array, ' latents']


def no_vectors(latents: int) -> Vectors:
  """Returns sums over no pairs: zeros."""
  sums, numbers = jnp.zeros(latents, jnp.float32), jnp.zeros(latents, jnp.int32)
  return Vectors(sums, sums, numbers, numbers)


class GradientSums(NamedTuple):
  """Sums over the pairs of some latents, from which the gradients are made.

  The rows of the two matrices may be in another order than the entries of
  `vectors`. Functions that reorder them also return the place of each row.
  """

  # The encoder's gradient as if there were no pre-encoder bias: s is multiplied
  # by the inputs.
  encoder: Float[Array, 'rows model']
  decoder: Float[Array, 'rows target_model']
  vectors: Vectors


class ReconstructionErrors(NamedTuple):
  """The errors of a batch's reconstruction."""

  # Errors times 2 / rows; 0 in rows that are not kept.
  scaled: Float[Array, 'batch target_model']
  # Mean squared norm over kept rows.
  loss: Float[Array, '']


def selected(batch: Batch, settings: Settings) -> Bool[Array, 'batch latents']:
  """Returns the mask of pairs that are active or near, in kept rows.

  Non-finite pre-activations are selected too, so that the finiteness check
  catches them.
  """
  distance = batch.pre_acts - batch.threshold[None, :]
  # Negated, because NaN fails every comparison and must be selected.
  below = (distance <= -settings.bandwidth / 2) & (batch.pre_acts > -jnp.inf)
  return ~below & batch.keep[:, None]


def active(
    pre_acts: Float[Array, '*shape'],
    threshold: Float[Array, '*#shape'],
    mask: Bool[Array, '*#shape'],
) -> Bool[Array, '*shape']:
  """Returns the mask of pre-activations above their threshold, within `mask`.

  Non-finite pre-activations count as active too. They are then decoded and make
  the loss non-finite, so that pre-activations need no check of their own.
  """
  low = (pre_acts <= threshold) & (pre_acts > -jnp.inf)
  return mask & ~low


def latents(
    pre_acts: Float[Array, '*shape'],
    threshold: Float[Array, '*#shape'],
    mask: Bool[Array, '*#shape'],
) -> Float[Array, '*shape']:
  """Returns the pre-activations where they are `active`, and 0 elsewhere."""
  return jnp.where(active(pre_acts, threshold, mask), pre_acts, 0.0)


def finish(
    batch: Batch,
    W_enc: Float[Array, 'model latents'],
    to_encoder: Float[Array, 'model latents'],
    to_decoder: Float[Array, 'latents target_model'],
    vectors: Vectors,
    errors: ReconstructionErrors,
    *,
    settings: Settings,
) -> Gradients:
  """Returns all gradients of a batch from the sums over its pairs.

  `to_encoder` and `to_decoder` are the sums of `GradientSums` for the matrices,
  with the encoder's in the layout of a checkpoint.
  """
  result = summarise(batch, vectors, errors, settings=settings)
  if settings.pre_encoder_bias:
    # The encoder's input was inputs - b_dec, which changes the gradients of the
    # encoder and of b_dec.
    to_encoder -= batch.b_dec[:, None] * vectors.b_enc[None, :]
    through_encoder = jnp.matmul(
        W_enc, vectors.b_enc, precision=jax.lax.Precision.HIGHEST
    )
    result = result._replace(b_dec=result.b_dec - through_encoder)
  ok = result.ok & all_finite(to_encoder, to_decoder, result.b_dec)
  return to_encoder, to_decoder, result._replace(ok=ok)


def scale_errors(
    batch: Batch, reconstruction: Float[Array, 'batch target_model']
) -> ReconstructionErrors:
  """Returns the errors of a batch's reconstruction, and their loss."""
  rows = row_count(batch.keep)
  errors = jnp.where(batch.keep[:, None], reconstruction - batch.targets, 0.0)
  loss = jnp.sum(jnp.square(errors)) / rows
  return ReconstructionErrors(errors * (2.0 / rows), loss)


def summarise(
    batch: Batch,
    vectors: Vectors,
    errors: ReconstructionErrors,
    *,
    settings: Settings,
) -> StepResult:
  """Returns a step's result from the sums over its pairs.

  The gradient of b_dec is without the part that flows through the encoder.
  `ok` covers the loss and the gradients of vectors, not those of matrices.
  """
  rows = row_count(batch.keep)
  l0 = counts.total(vectors.fired) / rows
  penalty = _penalty_slope(settings, batch, l0) / rows
  to_threshold = batch.threshold * vectors.near_slopes + penalty * vectors.near
  b_dec = errors.scaled.sum(axis=0)
  return StepResult(
      b_enc=vectors.b_enc,
      b_dec=b_dec,
      threshold=-to_threshold / settings.bandwidth,
      fired=vectors.fired,
      reconstruction=errors.loss,
      l0=l0,
      ok=all_finite(errors.loss, vectors.b_enc, b_dec, to_threshold),
  )


def _penalty_slope(
    settings: Settings, batch: Batch, l0: Float[Array, '']
) -> Float[Array, '']:
  """Returns the derivative of the penalty with respect to the mean L0."""
  if not settings.target_l0:
    return batch.coefficient
  distance = l0 / batch.target_l0 - 1.0
  return batch.coefficient * 2.0 * distance / batch.target_l0


def largest_penalty(batch: Batch, settings: Settings) -> Float[Array, '']:
  """Returns the penalty if all latents are active."""
  latents = batch.pre_acts.shape[-1]
  if not settings.target_l0:
    return batch.coefficient * latents
  return batch.coefficient * jnp.square(latents / batch.target_l0)


def row_count(keep: Bool[Array, ' batch']) -> Float[Array, '']:
  """Returns the number of kept rows, at least one."""
  return jnp.maximum(keep.sum(dtype=jnp.int32), 1).astype(jnp.float32)


def all_finite(*trees: Any) -> Bool[Array, '']:
  """Returns whether the sum of the squares of all entries is finite.

  It is not if an entry is non-finite or so large that its square overflows.
  """
  squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(trees)]
  return jnp.isfinite(sum(squares))
