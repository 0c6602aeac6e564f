"""Automatic differentiation: any variant, and what the fast paths must equal."""

from typing import Any

import jax
import jax.numpy as jnp

from jumprelu import optim, saes, suite
from jumprelu.array_typing import Array
from jumprelu.ops import pairs
from jumprelu.paths import protocol


def _step(
    sae: saes.base.Sae,
    state: suite.GroupState,
    hyper: dict[str, Any],
    *,
    shared: protocol.Shared,
    config: optim.Config,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Step one SAE, or leave it as it is where anything is not finite."""

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
  params, nu = optim.update(
      state.params,
      state.nu,
      grads,
      step=shared.step,
      learning_rate=hyper['learning_rate'] * shared.learning_rate,
      config=config,
      unit_norm=sae.unit_norm_decoder,
  )
  ok = jnp.isfinite(parts.loss) & pairs.all_finite(grads)
  outcome = protocol.Outcome(
      parts.loss, parts.reconstruction, parts.l0, parts.fired, ok
  )
  silent = protocol.count_silence(state.silent, shared, outcome)
  skipped = state.skipped + jnp.where(ok, 0, 1)
  new = (params | parts.carried, nu)
  params, nu = protocol.choose(ok, new, (state.params, state.nu))
  state = suite.GroupState(params, nu, silent, skipped)
  return state, protocol.metrics(
      outcome, shared, silent=silent, skipped=skipped
  )


PATH = protocol.Path(protocol.unchanged, protocol.unchanged, _step)
