"""Inputs, results and formulas that the exact fast steps of a JumpReLU share.

Only some pairs (row, latent) have a gradient. Their pre-activation is above the
threshold or inside the kernel around it:

  active:     pre_act > threshold
  near:       |pre_act - threshold| < bandwidth / 2

With errors g = 2 (reconstruction - targets) / rows, and s = <g, decoder row> at
such a pair, the gradients of Gemma Scope's loss (arXiv 2408.05147, equation 4,
with the pseudo-derivatives of `pseudo_derivatives.py`) are, for each latent,

  decoder    sum over active of pre_act g
  encoder    sum over active of s (inputs - b_dec)
  b_enc      sum over active of s
  threshold  -sum over near of (threshold s + penalty_slope / rows) / bandwidth

The gradient of b_dec is the sum of g. With a pre-encoder bias the product of
the encoder with the gradient of b_enc is subtracted from it. `dense`, `sparse`,
`native` and `pallas` compute these gradients in different ways from the same
pre-activations. Rows that are not kept have no pairs and no error.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import counts


class Settings(NamedTuple):
  """The constants of a run; hashable."""

  bandwidth: float
  # Whether the encoder sees the inputs minus b_dec.
  pre_encoder_bias: bool
  # Whether the penalty is coefficient * (L0 / target - 1)^2, not * L0.
  target_l0: bool
  # Adam's decay and epsilon; beta1 is 0.
  b2: float = 0.999
  eps: float = 1e-8


class Batch(NamedTuple):
  """One batch with its pre-activations, and the parameters that are vectors."""

  pre_acts: Float[Array, 'batch latents']
  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  threshold: Float[Array, ' latents']
  b_dec: Float[Array, ' target_model']
  coefficient: Float[Array, '']
  target_l0: Float[Array, '']


class AdamScalars(NamedTuple):
  """The numbers of one step that Adam needs."""

  learning_rate: Float[Array, '']
  # 1 - b2^t.
  correction: Float[Array, '']
  # Steps before this one in which second moments decayed.
  clock: Int32[Array, '']


class Matrices(NamedTuple):
  """Weights and second moments, with one row for each latent.

  A step may update only the rows of latents with a gradient.
  """

  encoder: Float[Array, 'latents model']
  decoder: Float[Array, 'latents target_model']
  nu_encoder: Float[Array, 'latents model']
  nu_decoder: Float[Array, 'latents target_model']
  # The clock up to which a row's second moments have decayed.
  touched: Int32[Array, ' latents']


class StepResult(NamedTuple):
  """The results of a step besides the matrices."""

  # Gradients; `threshold` is with respect to the linear threshold.
  b_enc: Float[Array, ' latents']
  b_dec: Float[Array, ' target_model']
  threshold: Float[Array, ' latents']
  # Kept rows on which each latent was active.
  fired: Int32[Array, ' latents']
  # Mean squared norm of the error over kept rows.
  reconstruction: Float[Array, '']
  l0: Float[Array, '']
  # Whether the step was finite; otherwise the matrices are unchanged.
  ok: Bool[Array, '']
  # Rows with more selected latents than a sparse step has room for.
  overflow: Int32[Array, ''] | int = 0


# Gradients of the encoder (in the layout of a checkpoint) and of the decoder,
# and the other results.
Gradients = tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    StepResult,
]


class Vectors(NamedTuple):
  """Sums over the pairs of each latent."""

  # The sum of slopes over active pairs, and over near ones.
  b_enc: Float[Array, ' latents']
  near_slopes: Float[Array, ' latents']
  # The numbers of active and of near pairs.
  fired: Int32[Array, ' latents']
  near: Int32[Array, ' latents']


def no_vectors(latents: int) -> Vectors:
  """Returns sums of zero."""
  sums, numbers = jnp.zeros(latents, jnp.float32), jnp.zeros(latents, jnp.int32)
  return Vectors(sums, sums, numbers, numbers)


class GradientSums(NamedTuple):
  """Sums over the pairs of latents, from which the gradients are made."""

  # Gradients of the encoder, without the pre-encoder bias, and of the decoder.
  # Their rows may be in another order than the latents.
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
  """Returns which pairs may have a gradient, in kept rows.

  Non-finite pre-activations are selected too, so that the finiteness check
  catches them.
  """
  distance = batch.pre_acts - batch.threshold[None, :]
  # The comparison of `pseudo_derivatives`, negated because NaN fails it.
  below = (distance <= -settings.bandwidth / 2) & (batch.pre_acts > -jnp.inf)
  return ~below & batch.keep[:, None]


def active(
    pre_acts: Float[Array, '*shape'],
    threshold: Float[Array, '*#shape'],
    mask: Bool[Array, '*#shape'],
) -> Bool[Array, '*shape']:
  """Returns which pre-activations are above their threshold, within `mask`.

  Non-finite pre-activations count as active too. They then are decoded and make
  the loss non-finite, which saves a check of all pre-activations.
  """
  low = (pre_acts <= threshold) & (pre_acts > -jnp.inf)
  return mask & ~low


def latents(
    pre_acts: Float[Array, '*shape'],
    threshold: Float[Array, '*#shape'],
    mask: Bool[Array, '*#shape'],
) -> Float[Array, '*shape']:
  """Returns latents: pre-activations where they are `active`, else 0."""
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

  `to_encoder` and `to_decoder` are these sums for the matrices, the former
  without the pre-encoder bias.
  """
  result = summarise(batch, vectors, errors, settings=settings)
  if settings.pre_encoder_bias:
    # The encoder's input was inputs - b_dec, so both gradients change.
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
  """Returns a step's result from its sums; `ok` covers only these."""
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


def row_count(keep: Bool[Array, ' batch']) -> Float[Array, '']:
  """Returns the number of kept rows, at least one."""
  return jnp.maximum(keep.sum(dtype=jnp.int32), 1).astype(jnp.float32)


def all_finite(*trees: Any) -> Bool[Array, '']:
  """Returns whether all entries, and the sum of their squares, are finite."""
  squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(trees)]
  return jnp.isfinite(sum(squares))
