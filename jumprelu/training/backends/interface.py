"""The interface of a backend, and the records and metrics of a step.

A backend computes the step that `training.step.step` defines. It may store the
state of a group in another layout during a run, and the state of a member in
another form during a segment. The state in a checkpoint does not depend on the
backend, so that a run may be resumed with another backend.
"""

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.training import optim, suite, train_batch

# The metric `dead_share` counts latents that have been silent for at least this
# number of kept rows.
DEAD_AFTER = 100_000

# The counters of silent rows saturate at this value, so that int32 never
# overflows.
_SILENT_MAX = 2**30


# Each skipped step adds `_FAILURE` to the counter `failing` of a member, and each
# other step subtracts 1. From `_FROZEN` on the member is frozen: it has skipped
# ten steps in a row, or for long about one step in a hundred.
_FAILURE, _FROZEN = 100, 1000


class Outcome(NamedTuple):
  """The results of one step of one SAE, apart from its new state."""

  loss: Float[Array, '']
  # The reconstruction term of the loss.
  reconstruction: Float[Array, '']
  # The mean number of active latents of the kept rows.
  l0: Float[Array, '']
  # The number of kept rows on which each latent was active.
  fired: Int[Array, ' latents']
  # Whether loss and gradients are finite; otherwise the step is skipped.
  ok: Bool[Array, '']
  # The number of rows with more selected latents than the backend's `cap`
  # (`active_pairs.StepResult`).
  overflow: Int[Array, ''] | int = 0


class Backend(abc.ABC):
  """One way to compute a step.

  `to_layout` and `from_layout` convert the state of a whole group, outside of
  the compiled segment, when a run starts and when its state is saved. The other
  methods are traced in the compiled segment for one member, whose arrays have
  no `members` axis. Only segments on a single device call `begin_segment` and
  `end_segment`.
  """

  def to_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Converts a group from the layout of a checkpoint to this backend's."""
    return state

  def from_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Converts a group from this backend's layout to that of a checkpoint."""
    return state

  def begin_segment(self, state: suite.GroupState) -> Any:
    """Converts a member from the backend's layout to the form for `step`."""
    return state

  def end_segment(
      self, member_state: Any, *, config: optim.Config
  ) -> suite.GroupState:
    """Converts a member from the form for `step` to the backend's layout."""
    del config
    return member_state

  @abc.abstractmethod
  def step(
      self,
      sae: saes.base.Sae,
      member_state: Any,
      hyper: dict[str, Array],
      *,
      batch: train_batch.TrainBatch,
      config: optim.Config,
  ) -> tuple[Any, dict[str, Array]]:
    """Returns the state of a member after one step, and its metrics.

    Args:
      sae: The SAE.
      member_state: The state of the member. It comes from `begin_segment` on a
        single device, and is a `suite.GroupState` on several.
      hyper: `sparsity_coefficient`, `target_l0` and `learning_rate` of the
        member.
      batch: The inputs of the step.
      config: The optimiser's config.
    """


def select(ok: Bool[Array, ''], new: Any, old: Any) -> Any:
  """Returns the new tree if `ok`, or the old tree if the step is skipped."""
  return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)


def is_frozen(failing: Int[Array, '*members']) -> Bool[Array, '*members']:
  """Returns whether members make no further steps, from their counters."""
  return failing >= _FROZEN


def count(
    state: Any, batch: train_batch.TrainBatch, outcome: Outcome
) -> tuple[Int[Array, ' latents'], Int[Array, ''], Int[Array, '']]:
  """Returns the counters `silent`, `skipped` and `failing` after a step.

  The counters are explained at `suite.GroupState`.
  """
  kept = jnp.sum(batch.keep, dtype=jnp.int32)
  still_silent = jnp.minimum(state.silent + kept, _SILENT_MAX)
  silent = jnp.where(outcome.fired > 0, 0, still_silent)
  skipped = state.skipped + jnp.where(outcome.ok, 0, 1)
  failing = state.failing + jnp.where(outcome.ok, -1, _FAILURE)
  failing = jnp.clip(failing, 0, _FROZEN)
  return select(outcome.ok, silent, state.silent), skipped, failing


def metrics(
    outcome: Outcome,
    batch: train_batch.TrainBatch,
    *,
    silent: Int[Array, ' latents'],
    skipped: Int[Array, ''],
    failing: Int[Array, ''],
) -> dict[str, Array]:
  """Returns the metrics of a step, from the counters after the step."""
  return {
      'loss': outcome.loss,
      'reconstruction': outcome.reconstruction,
      'fvu': outcome.reconstruction / batch.variance,
      'l0': outcome.l0,
      'dead_share': jnp.mean((silent >= DEAD_AFTER).astype(jnp.float32)),
      'skipped': skipped,
      'frozen': is_frozen(failing).astype(jnp.int32),
      'overflow': jnp.asarray(outcome.overflow, jnp.int32),
  }


def frozen_metrics(
    metrics: dict[str, Array],
    is_frozen: Bool[Array, '*steps'],
    *,
    skipped: Int[Array, '*steps'],
) -> dict[str, Array]:
  """Returns metrics in which those of a frozen member's steps are NaN.

  Args:
    metrics: The metrics of a member by step.
    is_frozen: Whether the member was frozen before the step.
    skipped: The counter of skipped steps after a step of a frozen member.
  """
  counters = {'skipped': skipped, 'frozen': 1, 'overflow': 0}
  frozen = {}
  for name, values in metrics.items():
    constant: Any = counters.get(name, jnp.nan)
    frozen[name] = jnp.where(is_frozen, constant, values)
  return frozen
