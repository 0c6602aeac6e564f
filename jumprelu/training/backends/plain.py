"""Conversions between an SAE and the records of `ops`.

The formulas of `ops.active_pairs` hold for plain JumpReLU SAEs, which
`is_plain` defines, and for TopK and BatchTopK SAEs (`has_pairs`).

For a TopK or BatchTopK SAE, the active pairs are those that it chooses. All
other pre-activations are replaced by a negative number, and thresholds are 0.
Every active pair then has the gradient that the formulas have, and the penalty
and the gradients of thresholds are left out. The auxiliary term for dead
latents is that of `ops.auxiliary`.
"""

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import active_pairs, largest_k
from jumprelu.training import optim, train_batch
from jumprelu.training.backends import interface

# The pre-activation of pairs that a TopK SAE does not choose, and a bandwidth
# for which such pairs are not near the threshold of 0.
_NOT_CHOSEN = -1.0
_BANDWIDTH = 1.0
# The weights of an encoder from which on a step that encodes is faster than XLA's
# product (docs/performance.md).
_LARGE = 2**20


def is_plain(sae: saes.base.Sae) -> bool:
  """Returns whether the SAE is a JumpReLU with the paper's gradients."""
  return (
      # Not `isinstance`, because subclasses change the loss.
      type(sae) is saes.jumprelu.JumpRelu
      and sae.config.kernel == 'rectangle'
      and not sae.config.gradient_to_pre_acts
      and not sae.skip
  )


def has_pairs(sae: saes.base.Sae) -> bool:
  """Returns whether the formulas of `ops.active_pairs` hold for this SAE."""
  chooses = type(sae) in (saes.topk.TopK, saes.batch_topk.BatchTopK)
  return is_plain(sae) or (chooses and not sae.skip)


def batch_of(
    sae: saes.base.Sae,
    params: optim.Params,
    pre_acts: Float[Array, 'batch latents'],
    hyper: dict[str, Array],
    batch: train_batch.TrainBatch,
    *,
    search: saes.topk.Search = largest_k.largest,
) -> active_pairs.Batch:
  """Returns the batch and its pre-activations as the record of `ops`.

  Args:
    sae: The SAE.
    params: The parameters of the SAE, apart from its matrices.
    pre_acts: The pre-activations of the batch.
    hyper: The member's hyper-parameters (`Backend.step`).
    batch: The inputs of the step.
    search: The function with which a TopK SAE chooses (`TopK.chosen`).
  """
  encoded = active_pairs.Batch(
      pre_acts=pre_acts,
      inputs=batch.inputs,
      targets=batch.targets,
      keep=batch.keep,
      threshold=jnp.zeros(sae.width, jnp.float32),
      b_dec=params['b_dec'],
      coefficient=jnp.float32(0),
      target_l0=hyper['target_l0'],
  )
  if isinstance(sae, saes.topk.TopK):
    chosen = sae.chosen(params, pre_acts, keep=batch.keep, search=search)
    return encoded._replace(pre_acts=only(chosen, pre_acts))
  assert isinstance(sae, saes.jumprelu.JumpRelu)
  large = sae.width * sae.d_in >= _LARGE
  if large and jax.config.jax_default_matmul_precision != 'bfloat16':
    encoded = encoded._replace(b_enc=params['b_enc'])
  return encoded._replace(
      threshold=sae.threshold(params),
      coefficient=hyper['sparsity_coefficient'] * batch.sparsity,
  )


def only(
    chosen: Bool[Array, 'batch latents'],
    pre_acts: Float[Array, 'batch latents'],
) -> Float[Array, 'batch latents']:
  """Returns the pre-activations without those of pairs that are not chosen.

  Non-finite pre-activations remain, so that the step is skipped.
  """
  return jnp.where(chosen | ~jnp.isfinite(pre_acts), pre_acts, _NOT_CHOSEN)


def dead_latents(
    sae: saes.base.Sae, silent: Int32[Array, ' latents']
) -> Bool[Array, ' latents'] | None:
  """Returns which latents are dead; None for an SAE without a term for them."""
  if isinstance(sae, saes.topk.TopK) and sae.trains_dead:
    return sae.dead(silent)
  return None


def settings_of(
    sae: saes.base.Sae, config: optim.Config
) -> active_pairs.Settings:
  """Returns the constants of a run as the record of `ops`."""
  settings = active_pairs.Settings(
      bandwidth=_BANDWIDTH,
      pre_encoder_bias=sae.subtracts_decoder_bias,
      target_l0=False,
      b2=config.b2,
      eps=config.eps,
      clip=config.update_clip,
  )
  if not isinstance(sae, saes.jumprelu.JumpRelu):
    return settings
  return settings._replace(
      bandwidth=sae.config.bandwidth,
      target_l0=sae.config.penalty == 'target_l0',
  )


def outcome_of(
    sae: saes.base.Sae,
    batch: active_pairs.Batch,
    result: active_pairs.StepResult,
) -> interface.Outcome:
  """Returns the outcome of a step; its loss includes all terms."""
  penalty = sae.sparsity_term(
      result.l0,
      sparsity_coefficient=batch.coefficient,
      target_l0=batch.target_l0,
  )
  loss = result.reconstruction + penalty + result.auxiliary
  ok = result.ok & jnp.isfinite(loss)
  return interface.Outcome(
      loss, result.reconstruction, result.l0, result.fired, ok, result.overflow
  )


def vector_gradients(
    sae: saes.base.Sae,
    params: optim.Params,
    result: active_pairs.StepResult,
    threshold: Float[Array, ' latents'],
) -> optim.Params:
  """Returns the gradients of the parameters that are vectors, by name.

  Args:
    sae: The SAE.
    params: The parameters of the SAE.
    result: The result of the step.
    threshold: The thresholds, also if `params` has their logarithms.
  """
  grads = {'b_enc': result.b_enc, 'b_dec': result.b_dec}
  if sae.untrained:
    return grads | {
        name: jnp.zeros_like(params[name]) for name in sae.untrained
    }
  if 'log_threshold' in params:
    # By the chain rule, because the threshold is exp(log_threshold).
    return grads | {'log_threshold': result.threshold * threshold}
  return grads | {'threshold': result.threshold}
