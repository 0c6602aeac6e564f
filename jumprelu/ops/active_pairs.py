"""What the exact fast paths of a JumpReLU step take and give.

A step's gradients live on pairs (row, latent) whose pre-activation is above the
threshold or inside the kernel around it:

  active:     pre_act > threshold
  near:       |pre_act - threshold| < bandwidth / 2

With errors g = 2 (reconstruction - targets) / rows, and s = <g, decoder row> at
such a pair, the gradients of Gemma Scope's loss (arXiv 2408.05147, equation 4,
with the pseudo-derivatives of `pseudo.py`) are, a latent,

  decoder    sum over active of pre_act g
  encoder    sum over active of s (inputs - b_dec)
  b_enc      sum over active of s
  threshold  -sum over near of (threshold s + penalty_slope / rows) / bandwidth

and b_dec's is the sum of g, minus, with a pre-encoder bias, the encoder's
columns weighted by b_enc's gradient. `dense`, `sparse`, `native` and `pallas`
compute these, each in its own way, from the same pre-activations; rows that are
not kept have no pairs and no error.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import counts


class Settings(NamedTuple):
  """What stands fixed for a run: hashable."""

  bandwidth: float
  # Whether the encoder sees the inputs minus b_dec.
  pre_encoder_bias: bool
  # Whether the penalty is coefficient * (L0 / target - 1)^2, not * L0.
  target_l0: bool
  # Adam's decay and epsilon; beta1 is 0.
  b2: float = 0.999
  eps: float = 1e-8


class Batch(NamedTuple):
  """One batch, and what of the parameters is no matrix."""

  pre_acts: Float[Array, 'batch latents']
  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  threshold: Float[Array, ' latents']
  b_dec: Float[Array, ' target_model']
  coefficient: Float[Array, '']
  target_l0: Float[Array, '']


class AdamScalars(NamedTuple):
  """Adam's numbers of one step."""

  learning_rate: Float[Array, '']
  # 1 - b2^t.
  correction: Float[Array, '']
  # Steps before this one in which second moments decayed.
  clock: Int32[Array, '']


class Matrices(NamedTuple):
  """Weights and second moments with a row a latent, of which some are touched."""

  encoder: Float[Array, 'latents model']
  decoder: Float[Array, 'latents target_model']
  nu_encoder: Float[Array, 'latents model']
  nu_decoder: Float[Array, 'latents target_model']
  # The clock up to which a row's second moments have decayed.
  touched: Int32[Array, ' latents']


class StepResult(NamedTuple):
  """What a step tells besides the matrices."""

  # Gradients; the threshold's is to the linear one.
  b_enc: Float[Array, ' latents']
  b_dec: Float[Array, ' target_model']
  threshold: Float[Array, ' latents']
  # Kept rows on which a latent was active.
  fired: Int32[Array, ' latents']
  # Mean squared norm of the error over kept rows.
  reconstruction: Float[Array, '']
  l0: Float[Array, '']
  # Whether all was finite; without it the matrices are as they were.
  ok: Bool[Array, '']
  # Rows with more selected latents than a sparse step has room for.
  overflow: Int32[Array, ''] | int = 0


# Of the encoder, which lies as it is released, the decoder, and the rest.
Gradients = tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    StepResult,
]


class Vectors(NamedTuple):
  """Sums over the pairs of each latent."""

  # Slopes over active pairs, and over near ones.
  b_enc: Float[Array, ' latents']
  near_slopes: Float[Array, ' latents']
  # How many of both there are.
  fired: Int32[Array, ' latents']
  near: Int32[Array, ' latents']


def no_vectors(latents: int) -> Vectors:
  """Start sums."""
  sums, numbers = jnp.zeros(latents, jnp.float32), jnp.zeros(latents, jnp.int32)
  return Vectors(sums, sums, numbers, numbers)


class GradientSums(NamedTuple):
  """What is added up over the pairs of latents."""

  # Gradients of the encoder, without the pre-encoder bias, and the decoder;
  # these rows may lie in an order of their own.
  encoder: Float[Array, 'rows model']
  decoder: Float[Array, 'rows target_model']
  vectors: Vectors


class ReconstructionErrors(NamedTuple):
  """What decoding a batch gives."""

  # Times 2 / rows, 0 in rows that are not kept.
  scaled: Float[Array, 'batch target_model']
  # Mean squared norm over kept rows.
  loss: Float[Array, '']


def selected(batch: Batch, settings: Settings) -> Bool[Array, 'batch latents']:
  """Say which pairs may have a gradient; rows that are not kept have none.

  What is not finite is selected as well, so that it is seen.
  """
  distance = batch.pre_acts - batch.threshold[None, :]
  # As `pseudo` compares; no comparison holds of what is not a number.
  below = (distance <= -settings.bandwidth / 2) & (batch.pre_acts > -jnp.inf)
  return ~below & batch.keep[:, None]


def active(
    pre_acts: Float[Array, '*shape'],
    threshold: Float[Array, '*#shape'],
    there: Bool[Array, '*#shape'],
) -> Bool[Array, '*shape']:
  """Say what is there and above its threshold, or not finite, however low.

  So what is not finite is decoded and seen in the loss: no pass over all
  pre-activations is needed.
  """
  low = (pre_acts <= threshold) & (pre_acts > -jnp.inf)
  return there & ~low


def latents(
    pre_acts: Float[Array, '*shape'],
    threshold: Float[Array, '*#shape'],
    there: Bool[Array, '*#shape'],
) -> Float[Array, '*shape']:
  """Give latents: pre-activations where they are `active`, else 0."""
  return jnp.where(active(pre_acts, threshold, there), pre_acts, 0.0)


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
  """Make all gradients, of the matrices' sums over pairs and the others.

  `to_encoder` is without what flows through the pre-encoder bias.
  """
  found = summarise(batch, vectors, errors, settings=settings)
  if settings.pre_encoder_bias:
    # The encoder read inputs - b_dec: both gradients feel it.
    to_encoder -= batch.b_dec[:, None] * vectors.b_enc[None, :]
    through = jnp.matmul(
        W_enc, vectors.b_enc, precision=jax.lax.Precision.HIGHEST
    )
    found = found._replace(b_dec=found.b_dec - through)
  ok = found.ok & all_finite(to_encoder, to_decoder, found.b_dec)
  return to_encoder, to_decoder, found._replace(ok=ok)


def scale_errors(
    batch: Batch, reconstruction: Float[Array, 'batch target_model']
) -> ReconstructionErrors:
  """Compare a batch's reconstruction with its targets."""
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
  """Make what a step tells of its sums; `ok` is of these alone."""
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
  """Differentiate the penalty with respect to the mean L0."""
  if not settings.target_l0:
    return batch.coefficient
  distance = l0 / batch.target_l0 - 1.0
  return batch.coefficient * 2.0 * distance / batch.target_l0


def row_count(keep: Bool[Array, ' batch']) -> Float[Array, '']:
  """Count the kept rows, at least one."""
  return jnp.maximum(keep.sum(dtype=jnp.int32), 1).astype(jnp.float32)


def all_finite(*trees: Any) -> Bool[Array, '']:
  """Say whether sums of squares are finite: one NaN makes its sum one."""
  squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(trees)]
  return jnp.isfinite(sum(squares))
