"""The steps of one group in a segment, member by member or vmapped.

The members of a group are trained

  vmapped, if the group's layout shards members;
  in turn on each batch, if the layout shards only latents or the batch, because
    devices then exchange each batch once for all members;
  in turn on the whole segment, on one device, because a member then stays in
    the CPU's cache, and only one member's latents are in memory.

A frozen member (`backends.is_frozen`) makes no steps.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import sharding
from jumprelu.activations import blocks
from jumprelu.array_typing import Array
from jumprelu.training import (
    backends,
    member_loops,
    optim,
    suite,
    train_batch,
)


class Schedule(NamedTuple):
  """Per-step values for all groups; each field has the shape [max_steps]."""

  # The number of each step in the run.
  step: Array
  # The last fields of `step.Metrics`, in the same order.
  kept: Array
  learning_rate: Array
  sparsity: Array


class Segment(NamedTuple):
  """The inputs of one group in a segment, apart from the group's state."""

  group: suite.Group
  backend: backends.Backend
  block: blocks.Block
  # The number of the first batch in the block, and the number of steps.
  first: Array
  steps: Array
  schedule: Schedule
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
    """Returns the state of a member after one step, and its metrics.

    The member must not be frozen.
    """
    return self.backend.step(
        self.group.sae, member_state, hyper, batch=batch, config=self.config
    )

  def step_unless_frozen(
      self,
      state: suite.GroupState,
      hyper: dict[str, Array],
      batch: train_batch.TrainBatch,
  ) -> tuple[suite.GroupState, dict[str, Array]]:
    """Returns the result of `step_member`, or the state of a frozen member."""
    frozen = backends.is_frozen(state.failing)
    skipped = state.skipped + 1
    new, metrics = self.step_member(state, hyper, batch)
    old = dataclasses.replace(state, skipped=skipped)
    metrics = backends.frozen_metrics(metrics, frozen, skipped=skipped)
    return backends.select(~frozen, new, old), metrics

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


def run_group(
    state: suite.GroupState, segment: Segment
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
    vmapped = jax.vmap(
        functools.partial(segment.step_unless_frozen, batch=batch)
    )
    state, metrics = vmapped(state, hyper)
    return _constrain_group(state, segment), metrics

  return segment.scan(step_members, state)


def _run_members_by_batch(state, hyper, segment):
  """Returns state and metrics; each batch is used by all members in turn."""

  def step_members(state, number):
    batch = segment.batch_at(number)

    def run_member(state, hyper):
      state, metrics = segment.step_unless_frozen(state, hyper, batch)
      return _constrain_group(state, segment, member=True), metrics

    return member_loops.map_members(run_member, state, hyper, axis=0)

  return segment.scan(step_members, state)


def _run_members_in_turn(state, hyper, segment):
  """Returns state and metrics; each member runs through all batches in turn."""

  def run_member(state, hyper):
    def step_member(member_state, number):
      return segment.step_member(member_state, hyper, segment.batch_at(number))

    member_state, metrics, made = member_loops.scan_until(
        step_member,
        segment.backend.begin_segment(state),
        segment.steps,
        segment.max_steps,
        stop=lambda state: backends.is_frozen(state.failing),
    )
    state = segment.backend.end_segment(member_state, config=segment.config)
    # The steps of a frozen member are not computed.
    missed = jnp.clip(jnp.arange(segment.max_steps) - made + 1, 0)
    metrics = backends.frozen_metrics(
        metrics, missed > 0, skipped=state.skipped + missed
    )
    skipped = state.skipped + segment.steps - made
    return dataclasses.replace(state, skipped=skipped), metrics

  return member_loops.map_members(run_member, state, hyper, axis=1)


def constrain(
    state: suite.TrainState,
    metrics: Any,
    groups: Sequence[suite.Group],
    mesh: jax.sharding.Mesh | None,
) -> tuple[suite.TrainState, Any]:
  """Returns the state constrained to its shardings, and replicated metrics."""
  if mesh is None or sharding.is_single_device(mesh):
    return state, metrics
  shardings = suite.state_shardings(groups, mesh=mesh)
  return (
      jax.lax.with_sharding_constraint(state, shardings),
      jax.lax.with_sharding_constraint(metrics, sharding.replicated(mesh)),
  )


def _constrain_group(
    state: Any, segment: Segment, *, member: bool = False
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
