"""Paths that have all gradients at once, and leave the update to `optim`."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array
from jumprelu.ops import active_pairs, dense
from jumprelu.training import optim, suite
from jumprelu.training.backends import protocol

# (sae, member's state, hyper-parameters, *, shared, config) -> gradients,
# parameters that follow the batches, outcome.
Differentiate = Callable[
    ..., tuple[optim.Params, optim.Params, protocol.Outcome]
]


def by_autodiff(
    sae: saes.base.Sae,
    state: suite.GroupState,
    hyper: dict[str, Any],
    *,
    shared: protocol.Shared,
    config: optim.Config,
) -> tuple[optim.Params, optim.Params, protocol.Outcome]:
  """Differentiate automatically: any variant."""
  del config

  def loss(params):
    return sae.loss(
        params,
        shared.inputs,
        shared.targets,
        keep=shared.keep,
        sparsity_coefficient=hyper['sparsity_coefficient'] * shared.sparsity,
        target_l0=hyper['target_l0'],
        silent=state.silent,
    )

  (_, parts), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
  ok = jnp.isfinite(parts.loss) & active_pairs.all_finite(grads)
  outcome = protocol.Outcome(
      parts.loss, parts.reconstruction, parts.l0, parts.fired, ok
  )
  return grads, parts.carried, outcome


def _by_formulas(
    gradients: Callable[..., Any],
    sae: saes.base.Sae,
    state: suite.GroupState,
    hyper: dict[str, Any],
    *,
    shared: protocol.Shared,
    config: optim.Config,
) -> tuple[optim.Params, optim.Params, protocol.Outcome]:
  """Differentiate a JumpReLU by the formulas of `ops.pairs`."""
  params = state.params
  batch = protocol.make_batch(sae, params, hyper, shared)
  settings = protocol.settings_of(sae, config)
  W_enc, W_dec, found = gradients(
      batch, params['W_enc'], params['W_dec'], settings=settings
  )
  grads = protocol.vectors(params, found, batch.threshold)
  grads |= {'W_enc': W_enc, 'W_dec': W_dec}
  return grads, {}, protocol.outcome_of(sae, batch, found)


def _step(
    differentiate: Differentiate,
    sae: saes.base.Sae,
    state: suite.GroupState,
    hyper: dict[str, Any],
    *,
    shared: protocol.Shared,
    config: optim.Config,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Step one SAE, or leave it as it is where anything is not finite."""
  grads, carried, outcome = differentiate(
      sae, state, hyper, shared=shared, config=config
  )
  params, nu = optim.update(
      state.params,
      state.nu,
      grads,
      step=shared.step,
      learning_rate=hyper['learning_rate'] * shared.learning_rate,
      config=config,
      unit_norm=sae.unit_norm_decoder,
  )
  params, nu = protocol.if_ok(
      outcome, (params | carried, nu), (state.params, state.nu)
  )
  silent, skipped = protocol.count(state.silent, state.skipped, shared, outcome)
  state = suite.GroupState(params, nu, silent, skipped)
  return state, protocol.metrics(
      outcome, shared, silent=silent, skipped=skipped
  )


def make_path(differentiate: Differentiate) -> protocol.Path:
  """Make the path of gradients; a member's state keeps its form."""

  def unchanged(sae, state, **settings):
    del sae, settings
    return state

  step = functools.partial(_step, differentiate)
  return protocol.Path(unchanged, unchanged, step)


ORACLE = make_path(by_autodiff)
DENSE = make_path(functools.partial(_by_formulas, dense.gradients))
