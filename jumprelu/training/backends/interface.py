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
  # The number of rows with more selected latents than the backend's `cap`.
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


def count(
    state: Any, batch: train_batch.TrainBatch, outcome: Outcome
) -> tuple[Int[Array, ' latents'], Int[Array, '']]:
  """Returns the counters `silent` and `skipped` after a step.

  The counters are explained at `suite.GroupState`.
  """
  kept = jnp.sum(batch.keep, dtype=jnp.int32)
  still_silent = jnp.minimum(state.silent + kept, _SILENT_MAX)
  silent = jnp.where(outcome.fired > 0, 0, still_silent)
  skipped = state.skipped + jnp.where(outcome.ok, 0, 1)
  return select(outcome.ok, silent, state.silent), skipped


def metrics(
    outcome: Outcome,
    batch: train_batch.TrainBatch,
    *,
    silent: Int[Array, ' latents'],
    skipped: Int[Array, ''],
) -> dict[str, Array]:
  """Returns the metrics of a step, from the counters after the step."""
  return {
      'loss': outcome.loss,
      'reconstruction': outcome.reconstruction,
      'fvu': outcome.reconstruction / batch.variance,
      'l0': outcome.l0,
      'dead_share': jnp.mean((silent >= DEAD_AFTER).astype(jnp.float32)),
      'skipped': skipped,
      'overflow': jnp.asarray(outcome.overflow, jnp.int32),
  }
