"""What the ways to step one SAE have in common.

A path may keep a member's state in a form of its own while a segment lasts; at
its ends the state is the same whatever the path, so that a run may change paths
wherever it may be resumed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import optim, saes, suite
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.ops import pairs

# A latent counts as dead in the metrics of training after so many kept rows
# without firing.
DEAD_AFTER = 100_000

# Where the counters of silence stop, far from int32's end.
_SILENT_MAX = 2**30


class Shared(NamedTuple):
  """What all members of a group share in one step."""

  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  # Pooled, of the targets.
  variance: Float[Array, '']
  step: Int[Array, '']
  # Multipliers of the schedules.
  learning_rate: Float[Array, '']
  sparsity: Float[Array, '']


class Outcome(NamedTuple):
  """What one step tells about one SAE."""

  loss: Float[Array, '']
  reconstruction: Float[Array, '']
  l0: Float[Array, '']
  # Kept rows on which each latent fired.
  fired: Int[Array, ' latents']
  # Whether all was finite; without it the step is not taken.
  ok: Bool[Array, '']
  # Rows that made a sparse step a dense one.
  overflow: Int[Array, ''] | int = 0


class Path(NamedTuple):
  """A way to step one SAE; its own form of the state is its own affair."""

  # (sae, member's state) -> own form.
  enter: Callable[[saes.base.Sae, suite.GroupState], Any]
  # (sae, own form, *, config) -> member's state.
  leave: Callable[..., suite.GroupState]
  # (sae, own form, hyper-parameters, *, shared, config) -> own form, metrics.
  step: Callable[..., tuple[Any, dict[str, Array]]]


def is_plain(sae: saes.base.Sae) -> bool:
  """Say whether the formulas of `ops.pairs` are this SAE's: a JumpReLU's."""
  return (
      type(sae) is saes.jumprelu.JumpRelu  # And none that builds on it.
      and sae.config.kernel == 'rectangle'
      and not sae.config.gradient_to_pre_acts
  )


def unchanged(sae: saes.base.Sae, state: Any, **settings: Any) -> Any:
  """Keep the state's form."""
  del sae, settings
  return state


def vectors(
    params: optim.Params,
    found: pairs.Found,
    threshold: Float[Array, ' latents'],
) -> optim.Params:
  """Name the gradients that `pairs.Found` holds as parameters are named."""
  grads = {'b_enc': found.b_enc, 'b_dec': found.b_dec}
  if 'log_threshold' in params:
    return grads | {'log_threshold': found.threshold * threshold}
  return grads | {'threshold': found.threshold}


def choose(ok: Bool[Array, ''], new: Any, old: Any) -> Any:
  """Take the new tree, or the old one where the step is not taken."""
  return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)


def count_silence(
    silent: Int[Array, ' latents'], shared: Shared, outcome: Outcome
) -> Int[Array, ' latents']:
  """Count kept rows since each latent fired."""
  kept = jnp.sum(shared.keep, dtype=jnp.int32)
  longer = jnp.minimum(silent + kept, _SILENT_MAX)
  return jnp.where(outcome.ok, jnp.where(outcome.fired > 0, 0, longer), silent)


def metrics(
    outcome: Outcome,
    shared: Shared,
    *,
    silent: Int[Array, ' latents'],
    skipped: Int[Array, ''],
) -> dict[str, Array]:
  """Report a step; `silent` and `skipped` as they are after it."""
  return {
      'loss': outcome.loss,
      'reconstruction': outcome.reconstruction,
      'fvu': outcome.reconstruction / shared.variance,
      'l0': outcome.l0,
      'dead_share': jnp.mean((silent >= DEAD_AFTER).astype(jnp.float32)),
      'skipped': skipped,
      'overflow': jnp.asarray(outcome.overflow, jnp.int32),
  }
