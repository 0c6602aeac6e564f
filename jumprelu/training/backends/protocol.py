"""What the ways to step one SAE have in common.

A path may keep a member's state in a form of its own while a segment lasts; at
its ends the state is the same whatever the path, but for how its encoder lies,
so that a run may change paths wherever it may be resumed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.ops import active_pairs
from jumprelu.training import optim, suite

# A latent counts as dead in the metrics of training after so many kept rows
# without firing.
DEAD_AFTER = 100_000

# A row with more selected latents makes a step dense: for an L0 of hundreds that
# is as fast. The kernels for GPUs have no room for more.
SPARSE_CAP = 384
PALLAS_CAP = 256

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
  # Whether it wants the encoder, and its second moments, with a row a latent.
  turned: bool = False


def is_plain(sae: saes.base.Sae) -> bool:
  """Say whether the formulas of `ops.pairs` are this SAE's: a JumpReLU's."""
  return (
      type(sae) is saes.jumprelu.JumpRelu  # And none that builds on it.
      and sae.config.kernel == 'rectangle'
      and not sae.config.gradient_to_pre_acts
      and not sae.skip
  )


def make_batch(
    sae: saes.base.Sae,
    params: optim.Params,
    hyper: dict[str, Any],
    shared: Shared,
) -> active_pairs.Batch:
  """Encode a batch; `params` are all of the SAE's."""
  return active_pairs.Batch(
      pre_acts=sae.pre_acts(params, shared.inputs),
      inputs=shared.inputs,
      targets=shared.targets,
      keep=shared.keep,
      threshold=sae.threshold(params),
      b_dec=params['b_dec'],
      coefficient=hyper['sparsity_coefficient'] * shared.sparsity,
      target_l0=hyper['target_l0'],
  )


def settings_of(
    sae: saes.base.Sae, config: optim.Config
) -> active_pairs.Settings:
  """Tell what stands fixed for a run."""
  return active_pairs.Settings(
      bandwidth=sae.config.bandwidth,
      pre_encoder_bias=sae.subtracts_decoder_bias,
      target_l0=sae.config.penalty == 'target_l0',
      b2=config.b2,
      eps=config.eps,
  )


def outcome_of(
    sae: saes.base.Sae, batch: active_pairs.Batch, found: active_pairs.Found
) -> Outcome:
  """Put the loss together."""
  penalty = sae.sparsity_term(
      found.l0,
      sparsity_coefficient=batch.coefficient,
      target_l0=batch.target_l0,
  )
  loss = found.reconstruction + penalty
  ok = found.ok & jnp.isfinite(loss)
  return Outcome(
      loss, found.reconstruction, found.l0, found.fired, ok, found.overflow
  )


def vectors(
    params: optim.Params,
    found: active_pairs.Found,
    threshold: Float[Array, ' latents'],
) -> optim.Params:
  """Name the gradients that `pairs.Found` holds as parameters are named."""
  grads = {'b_enc': found.b_enc, 'b_dec': found.b_dec}
  if 'log_threshold' in params:
    return grads | {'log_threshold': found.threshold * threshold}
  return grads | {'threshold': found.threshold}


def if_ok(outcome: Outcome, new: Any, old: Any) -> Any:
  """Take the new tree, or the old one where the step is not taken."""
  return jax.tree.map(
      lambda new, old: jnp.where(outcome.ok, new, old), new, old
  )


def count(
    silent: Int[Array, ' latents'],
    skipped: Int[Array, ''],
    shared: Shared,
    outcome: Outcome,
) -> tuple[Int[Array, ' latents'], Int[Array, '']]:
  """Count kept rows since each latent fired, and steps that were not taken."""
  kept = jnp.sum(shared.keep, dtype=jnp.int32)
  longer = jnp.minimum(silent + kept, _SILENT_MAX)
  now = jnp.where(outcome.fired > 0, 0, longer)
  return if_ok(outcome, now, silent), skipped + jnp.where(outcome.ok, 0, 1)


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
