"""One training step of a whole suite, and a segment of steps in one call.

A segment takes consecutive batches of a block, group after group, and returns
metrics as arrays: nothing inside it waits for the host. Where a group's members
lie on different devices they are vmapped; else they go one after another. On one
device each goes through all batches of the segment, so that its state stays where
it is fast; over several all take a step of one batch, which crosses them once. How
a member takes a step is its path (`paths`).
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import sharding
from jumprelu.activations import blocks
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.ops import active_pairs
from jumprelu.training import backends, member_loops, optim, suite


class Metrics(NamedTuple):
  """What a segment reports; zero behind the steps that it took."""

  # {group: {metric: [steps, members]}}.
  groups: dict[str, dict[str, Array]]
  # [steps]: rows of the batch that counted.
  kept: Array
  # [steps]: multipliers of the schedules.
  learning_rate: Array
  sparsity: Array


class Segments(NamedTuple):
  """The compiled steps, and what makes a state theirs."""

  # (state, block, first batch, number of steps) -> (state, metrics); jitted,
  # and the state, of which each encoder lies as its path wants it, is donated.
  run: Any
  # Turns the encoders of a state that is to be run, or those of one that was.
  turn: Callable[[suite.TrainState], suite.TrainState]


class _Schedule(NamedTuple):
  """What is known of each step before any group takes it; [steps] each."""

  kept: Array
  step: Array
  learning_rate: Array
  sparsity: Array


class _Span(NamedTuple):
  """The steps of a segment."""

  first: Array
  steps: Array
  max_steps: int
  schedule: _Schedule


def make_segments(
    groups: Sequence[suite.Group],
    config: optim.Config,
    *,
    total_steps: int,
    batch: int,
    max_steps: int,
    mesh: Any = None,
    path: str = backends.AUTO,
) -> Segments:
  """Compiles steps on batches `first`, first + 1, ... of a block.

  The number of steps, at most `max_steps`, is an argument of the compiled call,
  so that the last segment of a run does not compile anew; metrics behind it are
  zero. `path` is one of `paths.PATHS`, or `paths.AUTO`.
  """
  chosen = {group.name: backends.find(path, group, mesh) for group in groups}

  def schedule(state, block, first, steps):
    def one(number):
      step = state.step + number
      keep = blocks.rows(block, first + number, batch)[1]
      return _Schedule(
          jnp.sum(keep, dtype=jnp.int32),
          step,
          optim.learning_rate_at(config, step, total_steps),
          optim.sparsity_at(config, step, total_steps),
      )

    return member_loops.each(one, steps, most=max_steps)

  def segment(state, block, first, steps):
    known = schedule(state, block, first, steps)
    states, metrics = {}, {}
    for group in groups:
      span = _Span(first, steps, max_steps, known)
      lay_out = functools.partial(_lay_out, group, block, size=batch, mesh=mesh)
      found = _run_group(
          group,
          state.groups[group.name],
          span,
          path=chosen[group.name],
          lay_out=lay_out,
          config=config,
          mesh=mesh,
      )
      # One group after the other, or their latents are in memory together.
      found, first = jax.lax.optimization_barrier((found, first))
      states[group.name], metrics[group.name] = found
    state = suite.TrainState(groups=states, step=state.step + steps)
    metrics = Metrics(metrics, known.kept, known.learning_rate, known.sparsity)
    return _place(state, metrics, groups, mesh)

  turned = [name for name, path in chosen.items() if path.turned]
  return Segments(
      run=jax.jit(segment, donate_argnums=0),
      turn=functools.partial(_turn, turned),
  )


def _place(
    state: suite.TrainState,
    metrics: Metrics,
    groups: Sequence[suite.Group],
    mesh: Any,
) -> tuple[suite.TrainState, Metrics]:
  """Keeps the state where it lies, and metrics everywhere."""
  if sharding.is_alone(mesh):
    return state, metrics
  places = suite.state_shardings(groups, mesh=mesh)
  return (
      jax.lax.with_sharding_constraint(state, places),
      jax.lax.with_sharding_constraint(metrics, sharding.replicated(mesh)),
  )


def _turn(names: Sequence[str], state: suite.TrainState) -> suite.TrainState:
  """Turns the encoders of the named groups; twice is nothing."""

  def turn(tree):
    return tree | {'W_enc': _swap(tree['W_enc'])}

  groups = dict(state.groups)
  for name in names:
    group = groups[name]
    groups[name] = dataclasses.replace(
        group, params=turn(group.params), nu=turn(group.nu)
    )
  return dataclasses.replace(state, groups=groups)


@jax.jit
def _swap(x: Float[Array, 'members a b']) -> Float[Array, 'members b a']:
  return jnp.swapaxes(x, 1, 2)


def pooled_variance(
    targets: Float[Array, 'batch target_model'], keep: Bool[Array, ' batch']
) -> Float[Array, '']:
  """Mean squared distance of the kept rows from their mean."""
  rows = active_pairs.row_count(keep)
  kept = jnp.where(keep[:, None], targets, 0.0)
  centred = kept - (kept.sum(axis=0) / rows)[None, :]
  squares = jnp.where(keep, jnp.square(centred).sum(axis=-1), 0.0)
  return squares.sum() / rows


def _lay_out(
    group: suite.Group,
    block: blocks.Block,
    index: Int[Array, ''],
    *,
    size: int,
    mesh: Any,
) -> tuple[Array, Array, Array]:
  """Lays a batch out as the group wants it: inputs, targets, keep."""
  stored, keep = blocks.rows(block, index, size)
  rules = suite.layout_of(group, mesh).rules

  def lay(x):
    axes = ('batch',) + (None,) * (x.ndim - 1)
    return sharding.constrain(x, mesh, *axes, rules=rules)

  def scaled(tap):
    # Rows travel as they are stored, in half the bytes.
    return lay(blocks.scaled(lay(stored[tap]), block.inverse_scale[tap]))

  values = {tap: scaled(tap) for tap in group.reads.taps}
  sources = blocks.concatenated(values, group.reads.inputs)
  targets = sources
  if group.reads.is_transcoder:
    targets = blocks.concatenated(values, group.reads.targets)
  return sources, targets, lay(keep)


def _run_group(
    group: suite.Group,
    state: suite.GroupState,
    span: _Span,
    *,
    path: backends.Path,
    lay_out: Callable[[Array], tuple[Array, Array, Array]],
    config: optim.Config,
    mesh: Any,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Takes all members of a group through a segment; cuts padding off metrics."""
  hyper = suite.hyper_parameters(group, suite.slots(group, mesh))
  hyper = jax.tree.map(jnp.asarray, hyper)
  walk = functools.partial(
      member_loops.through, count=span.steps, most=span.max_steps
  )

  def take(own, hyper, shared):
    return path.step(group.sae, own, hyper, shared=shared, config=config)

  def shared_at(number):
    return _share(lay_out(span.first + number), span.schedule, number)

  def together(state, number):
    step = jax.vmap(functools.partial(take, shared=shared_at(number)))
    state, metrics = step(state, hyper)
    return _pin(state, group, mesh, one=False), metrics

  def in_turn(state, number):
    """Takes each member one step: the batch crosses the chips once."""
    shared = shared_at(number)

    def one(state, hyper):
      own = path.enter(group.sae, state)
      own, metrics = take(own, hyper, shared)
      state = path.leave(group.sae, own, config=config)
      return _pin(state, group, mesh, one=True), metrics

    return member_loops.in_turn(one, state, hyper, axis=0)

  def whole(state, hyper):
    """Takes one member through the segment."""

    def step(own, number):
      return take(own, hyper, shared_at(number))

    own, log = walk(step, path.enter(group.sae, state))
    return path.leave(group.sae, own, config=config), log

  if suite.layout_of(group, mesh).members:
    state, metrics = walk(together, state)
  elif not sharding.is_alone(mesh):
    state, metrics = walk(in_turn, state)
  else:
    # One member after the other: a batch of latents is in memory once, and on
    # CPU a member stays in the cache. The numbers are the same.
    state, metrics = member_loops.in_turn(whole, state, hyper, axis=1)
  members = len(group.members)
  return state, jax.tree.map(lambda x: x[:, :members], metrics)


def _share(
    batch: tuple[Array, Array, Array], known: _Schedule, number: Array
) -> backends.Shared:
  """What all members are given for one step."""
  return backends.Shared(
      *batch,
      variance=pooled_variance(*batch[1:]),
      step=known.step[number],
      learning_rate=known.learning_rate[number],
      sparsity=known.sparsity[number],
  )


def _pin(state: Any, group: suite.Group, mesh: Any, *, one: bool) -> Any:
  """Keeps a group's state where it lies, or `one` member's."""
  if sharding.is_alone(mesh):
    return state
  places = suite.state_shardings([group], mesh=mesh).groups[group.name]
  if one:
    places = jax.tree.map(sharding.of_one, places)
  return jax.lax.with_sharding_constraint(state, places)
