"""One training step of one SAE, and a segment of steps of a whole suite.

The function `step` defines a training step: it computes the loss, takes the
gradient by automatic differentiation and updates the parameters. The backends
in `training.backends` compute the same step faster.

A segment is one compiled call of several steps. It trains one group after
another (`suite.Group`) on the same batches of a block, and returns metrics as
arrays, so that no step waits for the host. The members of a group are trained

  vmapped, if the group's layout shards members;
  in turn on each batch, if the layout shards only latents or the batch, because
    devices then exchange each batch once for all members;
  in turn on the whole segment, on one device, because a member then stays in
    the CPU's cache, and only one member's latents are in memory.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import saes, sharding
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
  silent, skipped = backends.count(state, batch, outcome)
  state = suite.GroupState(params, nu, silent, skipped)
  return state, backends.metrics(outcome, batch, silent=silent, skipped=skipped)


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
      segment = _Segment(
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
      result = _run_group(state.groups[group.name], segment)
      # Without the barrier XLA may run several groups at once, with the latents
      # of all of them in memory.
      result, first = jax.lax.optimization_barrier((result, first))
      states[group.name], metrics[group.name] = result
    state = suite.TrainState(groups=states, step=state.step + steps)
    metrics = Metrics(metrics, *schedule[1:])
    return _constrain(state, metrics, groups, mesh)

  return Segments(jax.jit(run, donate_argnums=0), chosen)


class _Schedule(NamedTuple):
  """Per-step values for all groups; each field has the shape [max_steps]."""

  # The number of each step in the run.
  step: Array
  # The last fields of `Metrics`, in the same order.
  kept: Array
  learning_rate: Array
  sparsity: Array


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
) -> _Schedule:
  """Returns the schedule of a segment, whose first step has number `start`."""

  def row(state, number):
    step_number = start + number
    keep = blocks.rows(block, first + number, batch)[1]
    return state, _Schedule(
        step=step_number,
        kept=jnp.sum(keep, dtype=jnp.int32),
        learning_rate=schedules.learning_rate_at(
            config, step_number, total_steps
        ),
        sparsity=schedules.sparsity_at(config, step_number, total_steps),
    )

  return member_loops.scan_steps(row, (), steps, max_steps)[1]


class _Segment(NamedTuple):
  """The inputs of one group in a segment, apart from the group's state."""

  group: suite.Group
  backend: backends.Backend
  block: blocks.Block
  # The number of the first batch in the block, and the number of steps.
  first: Array
  steps: Array
  schedule: _Schedule
  config: optim.Config
  mesh: jax.sharding.Mesh | None
  batch: int  # The number of rows of a batch.
  max_steps: int  # The number of rows of the metrics.

  def batch_at(self, number: Array) -> train_batch.TrainBatch:
    """Returns the batch of the segment's step `number`, counted from 0."""
    return train_batch.make(
        self.group,
        self.block,
        self.first + number,
        size=self.batch,
        mesh=self.mesh,
        step=self.schedule.step[number],
        learning_rate=self.schedule.learning_rate[number],
        sparsity=self.schedule.sparsity[number],
    )

  def step_member(
      self,
      member_state: Any,
      hyper: dict[str, Array],
      batch: train_batch.TrainBatch,
  ) -> tuple[Any, dict[str, Array]]:
    """Returns the state of a member after one step, and its metrics."""
    return self.backend.step(
        self.group.sae, member_state, hyper, batch=batch, config=self.config
    )

  def scan(
      self,
      body: Callable[
          [member_loops.State, Array],
          tuple[member_loops.State, dict[str, Array]],
      ],
      state: member_loops.State,
  ) -> tuple[member_loops.State, dict[str, Array]]:
    """Returns the last state and the stacked outputs of `body` by step."""
    return member_loops.scan_steps(body, state, self.steps, self.max_steps)


def _run_group(
    state: suite.GroupState, segment: _Segment
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Returns a group's state after a segment, and metrics without padding."""
  group, mesh = segment.group, segment.mesh
  hyper = suite.hyper_parameters(group, suite.slots(group, mesh))
  hyper = jax.tree.map(jnp.asarray, hyper)
  if suite.layout_of(group, mesh).members:
    run = _run_members_vmapped
  elif not sharding.is_single_device(mesh):
    run = _run_members_by_batch
  else:
    run = _run_members_in_turn
  state, metrics = run(state, hyper, segment)
  members = len(group.members)
  return state, jax.tree.map(lambda x: x[:, :members], metrics)


def _run_members_vmapped(state, hyper, segment):
  """Returns state and metrics; each step is vmapped over the members."""

  def step_members(state, number):
    batch = segment.batch_at(number)
    vmapped = jax.vmap(functools.partial(segment.step_member, batch=batch))
    state, metrics = vmapped(state, hyper)
    return _constrain_group(state, segment), metrics

  return segment.scan(step_members, state)


def _run_members_by_batch(state, hyper, segment):
  """Returns state and metrics; each batch is used by all members in turn."""

  def step_members(state, number):
    batch = segment.batch_at(number)

    def run_member(state, hyper):
      state, metrics = segment.step_member(state, hyper, batch)
      return _constrain_group(state, segment, member=True), metrics

    return member_loops.map_members(run_member, state, hyper, axis=0)

  return segment.scan(step_members, state)


def _run_members_in_turn(state, hyper, segment):
  """Returns state and metrics; each member runs through all batches in turn."""

  def run_member(state, hyper):
    def step_member(member_state, number):
      return segment.step_member(member_state, hyper, segment.batch_at(number))

    member_state = segment.backend.begin_segment(state)
    member_state, metrics = segment.scan(step_member, member_state)
    state = segment.backend.end_segment(member_state, config=segment.config)
    return state, metrics

  return member_loops.map_members(run_member, state, hyper, axis=1)


def _constrain(
    state: suite.TrainState,
    metrics: Metrics,
    groups: Sequence[suite.Group],
    mesh: jax.sharding.Mesh | None,
) -> tuple[suite.TrainState, Metrics]:
  """Returns the state constrained to its shardings, and replicated metrics."""
  if mesh is None or sharding.is_single_device(mesh):
    return state, metrics
  shardings = suite.state_shardings(groups, mesh=mesh)
  return (
      jax.lax.with_sharding_constraint(state, shardings),
      jax.lax.with_sharding_constraint(metrics, sharding.replicated(mesh)),
  )


def _constrain_group(
    state: Any, segment: _Segment, *, member: bool = False
) -> Any:
  """Returns a group's state, or one member's, constrained to its shardings."""
  group, mesh = segment.group, segment.mesh
  state_shardings = suite.state_shardings([group], mesh=mesh)
  if state_shardings is None or sharding.is_single_device(mesh):
    return state
  shardings = state_shardings.groups[group.name]
  if member:
    shardings = jax.tree.map(sharding.member_sharding, shardings)
  return jax.lax.with_sharding_constraint(state, shardings)
