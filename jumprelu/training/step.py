"""One training step of one SAE, and a segment of steps of a whole suite.

The function `step` defines a training step: it computes the loss, takes the
gradient by automatic differentiation and updates the parameters. The backends
in `training.backends` compute the same step faster.

A segment is one compiled call of several steps. It trains one group after
another (`suite.Group`) on the same batches of a block, and returns metrics as
arrays, so that no step waits for the host.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.activations import blocks
from jumprelu.array_typing import Array
from jumprelu.ops import active_pairs
from jumprelu.training import (
    backends,
    member_loops,
    optim,
    schedules,
    suite,
    train_batch,
)
from jumprelu.training import segment as segment_lib


def step(
    sae: saes.base.Sae,
    state: suite.GroupState,
    hyper: dict[str, Array],
    *,
    batch: train_batch.TrainBatch,
    config: optim.Config,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Returns the state of one SAE after one step, and its metrics.

  This function defines the step of every variant. Its arguments are those of
  `Backend.step`; the arrays of `state` and `hyper` have no `members` axis.
  """

  def loss(params):
    return sae.loss(
        params,
        batch.inputs,
        batch.targets,
        keep=batch.keep,
        sparsity_coefficient=hyper['sparsity_coefficient'] * batch.sparsity,
        target_l0=hyper['target_l0'],
        silent=state.silent,
    )

  (_, parts), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
  params, nu = optim.update(
      state.params,
      state.nu,
      grads,
      step=batch.step,
      learning_rate=hyper['learning_rate'] * batch.learning_rate,
      config=config,
      unit_norm=sae.unit_norm_decoder,
  )
  # The step is skipped if its loss or gradients are not finite.
  ok = jnp.isfinite(parts.loss) & active_pairs.all_finite(grads)
  outcome = backends.Outcome(
      parts.loss, parts.reconstruction, parts.l0, parts.fired, ok
  )
  new, old = (params | parts.carried, nu), (state.params, state.nu)
  params, nu = backends.select(ok, new, old)
  silent, skipped, failing = backends.count(state, batch, outcome)
  state = suite.GroupState(params, nu, silent, skipped, failing)
  return state, backends.metrics(
      outcome, batch, silent=silent, skipped=skipped, failing=failing
  )


class Oracle(backends.Backend):
  """The function `step` as a backend for any variant, device and sharding."""

  def step(self, sae, member_state, hyper, *, batch, config):
    """Returns the state of a member after one step, and its metrics."""
    return step(sae, member_state, hyper, batch=batch, config=config)


BACKENDS: dict[str, backends.Backend] = {
    'oracle': Oracle(),
    'dense': backends.Dense(),
    'sparse': backends.Sparse(),
    'native': backends.Native(),
    'pallas': backends.Pallas(),
}


def find_backend(
    name: str, group: suite.Group, mesh: jax.sharding.Mesh | None
) -> backends.Backend:
  """Returns the backend that `backends.choose` names, in place if possible."""
  name = backends.choose(name, group, mesh)
  if name == 'dense' and backends.dense_in_place(mesh):
    return backends.DenseInPlace()
  return BACKENDS[name]


class Metrics(NamedTuple):
  """The metrics of a segment; rows after its last step are zero."""

  # {group: {metric: [max_steps, members]}}.
  groups: dict[str, dict[str, Array]]
  # [max_steps]: the number of kept rows of each batch.
  kept: Array
  # [max_steps]: the schedules' multipliers.
  learning_rate: Array
  sparsity: Array


class Segments:
  """The compiled segments of a suite.

  `run` is a jitted function with four arguments: a state in the layouts of the
  backends, a block, the number of the first batch in the block, and the number
  of steps. It returns the new state and `Metrics`. The old state is donated.
  """

  def __init__(
      self,
      run: jax.stages.Wrapped,
      group_backends: dict[str, backends.Backend],
  ):
    self.run = run
    self._backends = group_backends

  def prepare(self, state: suite.TrainState) -> suite.TrainState:
    """Converts a state from the layout of a checkpoint to those of `run`."""
    return self._convert(state, lambda backend: backend.to_layout)

  def finish(self, state: suite.TrainState) -> suite.TrainState:
    """Converts a state from the layouts of `run` to that of a checkpoint."""
    return self._convert(state, lambda backend: backend.from_layout)

  def _convert(self, state, method):
    groups = {
        name: method(self._backends[name])(group)
        for name, group in state.groups.items()
    }
    return dataclasses.replace(state, groups=groups)


def make_segments(
    groups: Sequence[suite.Group],
    config: optim.Config,
    *,
    total_steps: int,
    batch: int,
    max_steps: int,
    mesh: jax.sharding.Mesh | None = None,
    backend: str = backends.AUTO,
) -> Segments:
  """Returns compiled segments of at most `max_steps` steps.

  The number of steps is an argument of `run`, so that a shorter last segment is
  not compiled separately.

  Args:
    groups: The groups of the suite.
    config: The optimiser's config.
    total_steps: The number of steps of the whole run, for the schedules.
    batch: The number of rows of a batch.
    max_steps: The largest number of steps of a segment, which is also the
      number of rows of its metrics.
    mesh: The devices; None for one device.
    backend: A key of `BACKENDS`, or `backends.AUTO` (`backends.choose`).
  """
  make_schedule = functools.partial(
      _make_schedule,
      config=config,
      total_steps=total_steps,
      batch=batch,
      max_steps=max_steps,
  )
  chosen = {group.name: find_backend(backend, group, mesh) for group in groups}

  def run(state, block, first, steps):
    schedule = make_schedule(block, start=state.step, first=first, steps=steps)
    states, metrics = {}, {}
    for group in groups:
      segment = segment_lib.Segment(
          group=group,
          backend=chosen[group.name],
          block=block,
          first=first,
          steps=steps,
          schedule=schedule,
          config=config,
          mesh=mesh,
          batch=batch,
          max_steps=max_steps,
      )
      result = segment_lib.run_group(state.groups[group.name], segment)
      # Without the barrier XLA may run several groups at once, with the latents
      # of all of them in memory.
      result, first = jax.lax.optimization_barrier((result, first))
      states[group.name], metrics[group.name] = result
    state = suite.TrainState(groups=states, step=state.step + steps)
    metrics = Metrics(metrics, *schedule[1:])
    return segment_lib.constrain(state, metrics, groups, mesh)

  return Segments(jax.jit(run, donate_argnums=0), chosen)


def _make_schedule(
    block: blocks.Block,
    *,
    start: Array,
    first: Array,
    steps: Array,
    config: optim.Config,
    total_steps: int,
    batch: int,
    max_steps: int,
) -> segment_lib.Schedule:
  """Returns the schedule of a segment, whose first step has number `start`."""

  def row(state, number):
    step_number = start + number
    keep = blocks.rows(block, first + number, batch)[1]
    return state, segment_lib.Schedule(
        step=step_number,
        kept=jnp.sum(keep, dtype=jnp.int32),
        learning_rate=schedules.learning_rate_at(
            config, step_number, total_steps
        ),
        sparsity=schedules.sparsity_at(config, step_number, total_steps),
    )

  return member_loops.scan_steps(row, (), steps, max_steps)[1]
