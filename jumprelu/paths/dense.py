"""The written-out gradient of a JumpReLU, for any device and layout."""

from typing import Any

import jax.numpy as jnp

from jumprelu import optim, saes, suite
from jumprelu.array_typing import Array
from jumprelu.ops import dense, pairs
from jumprelu.paths import protocol


def make_batch(
    sae: saes.base.Sae,
    params: optim.Params,
    hyper: dict[str, Any],
    shared: protocol.Shared,
) -> pairs.Batch:
  """Encode a batch; `params` are all of the SAE's."""
  return pairs.Batch(
      pre_acts=sae.pre_acts(params, shared.inputs),
      inputs=shared.inputs,
      targets=shared.targets,
      keep=shared.keep,
      threshold=sae.threshold(params),
      b_dec=params['b_dec'],
      coefficient=hyper['sparsity_coefficient'] * shared.sparsity,
      target_l0=hyper['target_l0'],
  )


def settings_of(sae: saes.base.Sae, config: optim.Config) -> pairs.Settings:
  """Tell what stands fixed for a run."""
  return pairs.Settings(
      bandwidth=sae.config.bandwidth,
      pre_encoder_bias=sae.subtracts_decoder_bias,
      target_l0=sae.config.penalty == 'target_l0',
      b2=config.b2,
      eps=config.eps,
  )


def outcome_of(
    sae: saes.base.Sae, batch: pairs.Batch, found: pairs.Found
) -> protocol.Outcome:
  """Put the loss together."""
  penalty = sae.sparsity_term(
      found.l0,
      sparsity_coefficient=batch.coefficient,
      target_l0=batch.target_l0,
  )
  loss = found.reconstruction + penalty
  ok = found.ok & jnp.isfinite(loss)
  return protocol.Outcome(loss, found.reconstruction, found.l0, found.fired, ok)


def _step(
    sae: saes.base.Sae,
    state: suite.GroupState,
    hyper: dict[str, Any],
    *,
    shared: protocol.Shared,
    config: optim.Config,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Step one SAE, or leave it as it is where anything is not finite."""
  params = state.params
  batch = make_batch(sae, params, hyper, shared)
  W_enc, W_dec, rest = dense.gradients(
      batch,
      params['W_enc'],
      params['W_dec'],
      settings=settings_of(sae, config),
  )
  grads = protocol.vectors(params, rest, batch.threshold)
  grads |= {'W_enc': W_enc, 'W_dec': W_dec}
  new = optim.update(
      params,
      state.nu,
      grads,
      step=shared.step,
      learning_rate=hyper['learning_rate'] * shared.learning_rate,
      config=config,
  )
  outcome = outcome_of(sae, batch, rest)
  silent = protocol.count_silence(state.silent, shared, outcome)
  skipped = state.skipped + jnp.where(outcome.ok, 0, 1)
  params, nu = protocol.choose(outcome.ok, new, (params, state.nu))
  state = suite.GroupState(params, nu, silent, skipped)
  return state, protocol.metrics(
      outcome, shared, silent=silent, skipped=skipped
  )


PATH = protocol.Path(protocol.unchanged, protocol.unchanged, _step)
