"""The interface of a backend, and the records and metrics of a step.

A backend computes the step that `training.step.step` defines. During a run it
may keep the state of a group in a layout of its own, and during a segment the
state of a member in a form of its own. The state in checkpoints does not depend
on the backend, so that a run may be resumed with another one.
"""

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.training import optim, suite, train_batch

# The metrics of training count a latent as dead once it has been silent for
# this number of kept rows.
DEAD_AFTER = 100_000

# The counters of silent rows saturate here, far below the maximum of int32.
_SILENT_MAX = 2**30


class Outcome(NamedTuple):
  """The results of one step of one SAE besides its new state."""

  loss: Float[Array, '']
  reconstruction: Float[Array, '']
  l0: Float[Array, '']
  # Kept rows on which each latent was active.
  fired: Int[Array, ' latents']
  # Whether loss and gradients are finite; otherwise the step is skipped.
  ok: Bool[Array, '']
  # Rows with more selected latents than a sparse step has room for.
  overflow: Int[Array, ''] | int = 0


class Backend(abc.ABC):
  """One way to compute a step.

  `to_layout` and `from_layout` are called on a whole group, outside of the
  compiled segment, when a run starts and when its state is saved. The other
  methods are called inside the compiled segment on one member, whose arrays
  have no `members` axis. `begin_segment` and `end_segment` are called on one
  device only.
  """

  def to_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Returns the state of a group in this backend's layout."""
    return state

  def from_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Returns a state in this backend's layout in that of a checkpoint."""
    return state

  def begin_segment(self, state: suite.GroupState) -> Any:
    """Returns the state of a member in the form that `step` works on."""
    return state

  def end_segment(
      self, member_state: Any, *, config: optim.Config
  ) -> suite.GroupState:
    """Returns the state of a member, given in the form that `step` works on."""
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
      member_state: The state of the member, from `begin_segment`.
      hyper: `sparsity_coefficient`, `target_l0` and `learning_rate` of the
        member.
      batch: The inputs of the step.
      config: The optimiser's config.
    """


def select(ok: Bool[Array, ''], new: Any, old: Any) -> Any:
  """Returns the new tree, or the old one if the step is skipped."""
  return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)


def count(
    state: Any, batch: train_batch.TrainBatch, outcome: Outcome
) -> tuple[Int[Array, ' latents'], Int[Array, '']]:
  """Returns the counters `silent` and `skipped` after a step.

  `silent` counts the kept rows since each latent was last active.
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
  """Returns the metrics of a step, with both counters as after the step."""
  return {
      'loss': outcome.loss,
      'reconstruction': outcome.reconstruction,
      'fvu': outcome.reconstruction / batch.variance,
      'l0': outcome.l0,
      'dead_share': jnp.mean((silent >= DEAD_AFTER).astype(jnp.float32)),
      'skipped': skipped,
      'overflow': jnp.asarray(outcome.overflow, jnp.int32),
  }
