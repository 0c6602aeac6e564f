"""Inference-time optimisation: the quality of a dictionary without its encoder.

With a fixed decoder and bias, and without a skip term, each token's target is
approximated by as many latents as the SAE has active on average. The latents
come from gradient pursuit (Blumensath and Davies, 2008) with non-negative
values. In each round, the latent whose decoder row has the largest product with
the residual is selected. Then all selected latents take one gradient step of
the length that minimises the error. The gap to the SAE's own reconstruction is
due to its encoder (Gated SAEs, arXiv 2404.16014, figures 10 and 11). Latents
are chosen greedily, so a better choice may exist.

Each round takes three products with the decoder, so pursuit is run only on the
tokens of the losses (`eval.delta_loss_tokens`).
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jumprelu import metrics, sharding
from jumprelu.array_typing import Array, Float
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals.measures import context as context_lib


class Pursuit(NamedTuple):
  """Statistics of pursuit, and of the SAE itself on the same tokens."""

  active: metrics.Average
  residual: metrics.Average  # ||y - yhat||^2
  encoded: metrics.Average  # The same for the SAE's reconstruction.
  variance: metrics.Average  # ||y - mean||^2
  delta: metrics.Average  # Increase of pursuit's loss over the clean loss.

  def merge(self, other: 'Pursuit') -> 'Pursuit':
    """Returns the record of both sets of sequences."""
    return metrics.add(self, other)

  def compute(self) -> dict[str, Any]:
    """Returns L0, FVU and delta loss of pursuit, and the SAE's FVU."""
    variance = self.variance.mean
    return {
        'pursuit_l0': self.active.mean,
        'pursuit_fvu': metrics.ratio(self.residual.mean, variance),
        'encoder_fvu': metrics.ratio(self.encoded.mean, variance),
        'pursuit_delta_loss': self.delta.mean,
        'pursuit_delta_loss_stderr': self.delta.stderr,
        'tokens_pursuit': self.variance.count,
    }


def latents(
    targets: Float[Array, 'rows target_model'],
    W_dec: Float[Array, 'latents target_model'],
    rounds: Any,
) -> Float[Array, 'rows latents']:
  """Returns non-negative latents, at most `rounds` of them active in a row.

  Args:
    targets: Rows that `latents @ W_dec` approximates.
    W_dec: The dictionary.
    rounds: Number of rounds, which may be traced.
  """
  rows = jnp.arange(len(targets))

  def pursue_once(_, state):
    values, selected = state
    residual = targets - values @ W_dec
    gain = residual @ W_dec.T
    best = jnp.where(selected, -jnp.inf, gain).argmax(-1)
    # A latent with a negative gain is not selected, because it would stay 0.
    selected = selected.at[rows, best].max(gain[rows, best] > 0)
    gradient = jnp.where(selected, gain, 0)
    move = gradient @ W_dec
    length = jnp.square(move).sum(-1)
    along = (residual * move).sum(-1) / jnp.where(length > 0, length, 1)
    values = jnp.maximum(values + along[:, None] * gradient, 0)
    return values, selected

  shape = len(targets), len(W_dec)
  start = jnp.zeros(shape, jnp.float32), jnp.zeros(shape, bool)
  values, _ = lax.fori_loop(0, rounds, pursue_once, start)
  return values


@functools.partial(jax.jit, static_argnames=('mesh',))
def _pursue(params, targets, rounds, *, mesh):
  """Returns reconstructions of targets, and their numbers of active latents."""

  def pursue_sequence(rows):
    rows = rows.astype(jnp.float32) - params['b_dec'][None]
    values = latents(rows, params['W_dec'], rounds)
    outputs = values @ params['W_dec'] + params['b_dec'][None]
    return outputs, (values > 0).sum(-1)

  outputs, active = lax.map(pursue_sequence, targets)
  outputs = outputs.astype(targets.dtype)
  return sharding.constrain(outputs, mesh, 'sequences', None, None), active


@functools.partial(jax.jit, static_argnames=('mesh',))
def _sums(values, keep, *, mesh):
  """Returns each value [sequences, positions], summed over kept positions."""
  sums = [jnp.where(keep, value, 0).sum(-1) for value in values]
  return jitted.replicate((sums, keep.sum(-1)), mesh)


def _squares(a, b):
  errors = a.astype(jnp.float32) - b.astype(jnp.float32)
  return jnp.square(errors).sum(-1)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on the text of the losses."""
  mesh = context.text.mesh
  losses = corpus_passes.losses_of(context.model, context.means, mesh=mesh)
  rounds = [
      max(1, round(float(np.sum(frequency))))
      for frequency in context.firing_frequency
  ]

  def step(tokens):
    batch = context.forward(tokens)
    clean = corpus_passes.clean_of(losses, batch, mesh=mesh)

    def of_member(member, count):
      targets = batch.values[member.target]
      outputs, active = _pursue(member.params, targets, count, mesh=mesh)
      call = corpus_passes.call_of(member, batch, mesh=mesh)
      reconstruction = call(jitted.reconstruct)
      mean = np.asarray(context.means[member.target], np.float32)[None, None]
      values = (
          active,
          _squares(outputs, targets),
          _squares(reconstruction, targets),
          _squares(targets, mean),
      )
      spliced = losses[member.target](batch, outputs)
      return _sums(values, batch.keep, mesh=mesh), jitted.sequence_losses(
          spliced, batch, clean=clean[member.target], mesh=mesh
      )

    return list(map(of_member, context.members, rounds))

  def finish(part):
    (sums, counts), delta = part
    active, residual, encoded, variance = (
        metrics.Average.from_sums(total, counts) for total in sums
    )
    return Pursuit(active, residual, encoded, variance, delta.average())

  total = corpus_passes.merge_over(
      context.text, step, 'evaluate: pursuit', finish=finish
  )
  return context_lib.Measured([record.compute() for record in total])
