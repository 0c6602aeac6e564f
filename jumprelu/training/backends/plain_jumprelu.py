"""Conversions between a plain JumpReLU SAE and the records of `ops`.

The formulas of `ops.active_pairs` hold for plain JumpReLU SAEs only, which
`is_plain` defines.
"""

import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Float
from jumprelu.ops import active_pairs
from jumprelu.training import optim, train_batch
from jumprelu.training.backends import interface


def is_plain(sae: saes.base.Sae) -> bool:
  """Returns whether the formulas of `ops.active_pairs` hold for this SAE."""
  return (
      # Not `isinstance`, because subclasses change the loss.
      type(sae) is saes.jumprelu.JumpRelu
      and sae.config.kernel == 'rectangle'
      and not sae.config.gradient_to_pre_acts
      and not sae.skip
  )


def encode(
    sae: saes.base.Sae,
    params: optim.Params,
    hyper: dict[str, Array],
    batch: train_batch.TrainBatch,
) -> active_pairs.Batch:
  """Returns the batch and its pre-activations as the record of `ops`.

  Args:
    sae: The SAE.
    params: All parameters of the SAE except W_dec, which may be missing.
    hyper: The member's hyper-parameters (`Backend.step`).
    batch: The inputs of the step.
  """
  return active_pairs.Batch(
      pre_acts=sae.pre_acts(params, batch.inputs),
      inputs=batch.inputs,
      targets=batch.targets,
      keep=batch.keep,
      threshold=sae.threshold(params),
      b_dec=params['b_dec'],
      coefficient=hyper['sparsity_coefficient'] * batch.sparsity,
      target_l0=hyper['target_l0'],
  )


def settings_of(
    sae: saes.base.Sae, config: optim.Config
) -> active_pairs.Settings:
  """Returns the constants of a run as the record of `ops`."""
  return active_pairs.Settings(
      bandwidth=sae.config.bandwidth,
      pre_encoder_bias=sae.subtracts_decoder_bias,
      target_l0=sae.config.penalty == 'target_l0',
      b2=config.b2,
      eps=config.eps,
  )


def outcome_of(
    sae: saes.base.Sae,
    batch: active_pairs.Batch,
    result: active_pairs.StepResult,
) -> interface.Outcome:
  """Returns the outcome of a step; its loss includes the sparsity penalty."""
  penalty = sae.sparsity_term(
      result.l0,
      sparsity_coefficient=batch.coefficient,
      target_l0=batch.target_l0,
  )
  loss = result.reconstruction + penalty
  ok = result.ok & jnp.isfinite(loss)
  return interface.Outcome(
      loss, result.reconstruction, result.l0, result.fired, ok, result.overflow
  )


def vector_gradients(
    params: optim.Params,
    result: active_pairs.StepResult,
    threshold: Float[Array, ' latents'],
) -> optim.Params:
  """Returns the gradients of the parameters that are vectors, by name.

  Args:
    params: The parameters of the SAE.
    result: The result of the step.
    threshold: The thresholds, also if `params` has their logarithms.
  """
  grads = {'b_enc': result.b_enc, 'b_dec': result.b_dec}
  if 'log_threshold' in params:
    # By the chain rule, because the threshold is exp(log_threshold).
    return grads | {'log_threshold': result.threshold * threshold}
  return grads | {'threshold': result.threshold}
