"""One training step of a whole suite, and a segment of steps in one call.

A segment takes consecutive batches of a block, group after group, and returns
metrics as arrays: nothing inside it waits for the host. Where a group's members
lie on different devices they are vmapped; else they go one after another, each
through all batches of the segment, so that its state stays where it is fast.
How a member takes a step is its path (`paths`).
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import blocks, optim, paths, sharding, suite
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.ops import pairs


class Metrics(NamedTuple):
  """What a segment reports; zero behind the steps that it took."""

  # {group: {metric: [steps, members]}}.
  groups: dict[str, dict[str, Array]]
  # [steps]: rows of the batch that counted.
  kept: Array
  # [steps]: multipliers of the schedules.
  learning_rate: Array
  sparsity: Array


# (state, block, first batch, number of steps) -> (state, metrics).
Segment = Callable[
    [suite.TrainState, blocks.Block, Array, Array],
    tuple[suite.TrainState, Metrics],
]


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


def make_segment(
    groups: Sequence[suite.Group],
    config: optim.Config,
    *,
    total_steps: int,
    batch: int,
    max_steps: int,
    mesh: Any = None,
    path: str = paths.AUTO,
) -> Segment:
  """Compiles steps on batches `first`, first + 1, ... of a block.

  The state is donated. The number of steps, at most `max_steps`, is an
  argument of the compiled call, so that the last segment of a run does not
  compile anew; metrics behind it are zero. `path` is one of `paths.PATHS`, or
  `paths.AUTO`.
  """
  chosen = {group.name: paths.find(path, group, mesh) for group in groups}

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

    return _each(one, steps, max_steps)

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
    if mesh is not None and mesh.size > 1:
      places = suite.state_shardings(groups, mesh=mesh)
      state = jax.lax.with_sharding_constraint(state, places)
      everywhere = sharding.replicated(mesh)
      metrics = jax.lax.with_sharding_constraint(metrics, everywhere)
    return state, metrics

  return jax.jit(segment, donate_argnums=0)


def pooled_variance(
    targets: Float[Array, 'batch target_model'], keep: Bool[Array, ' batch']
) -> Float[Array, '']:
  """Mean squared distance of the kept rows from their mean."""
  rows = pairs.row_count(keep)
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

  def scaled(site):
    # Rows travel as they are stored, in half the bytes.
    return lay(blocks.scaled(lay(stored[site]), block.inverse_scale[site]))

  sources = scaled(group.input_site)
  targets = sources
  if group.target_site != group.input_site:
    targets = scaled(group.target_site)
  return sources, targets, lay(keep)


def _run_group(
    group: suite.Group,
    state: suite.GroupState,
    span: _Span,
    *,
    path: paths.Path,
    lay_out: Callable[[Array], tuple[Array, Array, Array]],
    config: optim.Config,
    mesh: Any,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Takes all members of a group through a segment; cuts padding off metrics."""
  hyper = suite.hyper_parameters(group, suite.slots(group, mesh))
  hyper = jax.tree.map(jnp.asarray, hyper)
  known = span.schedule
  variance = _each(
      lambda number: pooled_variance(*lay_out(span.first + number)[1:]),
      span.steps,
      span.max_steps,
  )

  def shared(number):
    return paths.Shared(
        *lay_out(span.first + number),
        variance=variance[number],
        step=known.step[number],
        learning_rate=known.learning_rate[number],
        sparsity=known.sparsity[number],
    )

  def take(hyper, own, number):
    return path.step(
        group.sae, own, hyper, shared=shared(number), config=config
    )

  def whole(state, hyper):
    """Takes one member through the segment."""

    def step(own, number):
      own, metrics = take(hyper, own, number)
      return _pin(own, group, mesh, one=True), metrics

    own, log = _loop(step, path.enter(group.sae, state), span)
    return path.leave(group.sae, own, config=config), log

  def together(state, number):
    step = jax.vmap(functools.partial(take, number=number))
    state, metrics = step(hyper, state)
    return _pin(state, group, mesh, one=False), metrics

  if suite.layout_of(group, mesh).members:
    state, metrics = _loop(together, state, span)
  else:
    # One member after the other: a batch of latents is in memory once, and on
    # CPU a member stays in the cache. The numbers are the same.
    state, metrics = _in_turn(whole, state, hyper)
  members = len(group.members)
  return state, jax.tree.map(lambda x: x[:, :members], metrics)


def _pin(state: Any, group: suite.Group, mesh: Any, *, one: bool) -> Any:
  """Keeps a group's state where it lies, or `one` member's."""
  if mesh is None or mesh.size == 1:
    return state
  places = suite.state_shardings([group], mesh=mesh).groups[group.name]
  if one:
    places = jax.tree.map(sharding.of_one, places)
  return jax.lax.with_sharding_constraint(state, places)


def _loop(
    take: Callable[[Any, Array], tuple[Any, Any]], state: Any, span: _Span
) -> tuple[Any, Any]:
  """Takes a state through the steps; metrics are stacked, zeros behind them."""

  def body(number, carry):
    state, log = carry
    state, metrics = take(state, number)
    return state, _put(log, number, metrics)

  _, one = jax.eval_shape(take, state, jnp.int32(0))
  log = _zeros(one, span.max_steps)
  return jax.lax.fori_loop(0, span.steps, body, (state, log))


def _in_turn(
    whole: Callable, state: suite.GroupState, hyper: dict[str, Any]
) -> tuple[suite.GroupState, dict[str, Array]]:
  """What `vmap` computes, member by member, in the state's own memory.

  `lax.map` would hold the state twice: what it reads and what it writes.
  """
  count = len(state.skipped)

  def member(tree, i):
    index = jax.lax.dynamic_index_in_dim
    return jax.tree.map(lambda x: index(x, i, keepdims=False), tree)

  def put(tree, i, values, axis):
    update = jax.lax.dynamic_update_index_in_dim
    return jax.tree.map(lambda a, x: update(a, x, i, axis), tree, values)

  if count == 1:  # Nothing to copy out and back.
    found = whole(*jax.tree.map(lambda x: x[0], (state, hyper)))
    first = jax.tree.map(lambda x: x[None], found[0])
    return first, jax.tree.map(lambda x: x[:, None], found[1])

  def body(i, carry):
    state, log = carry
    stepped, metrics = whole(member(state, i), member(hyper, i))
    return put(state, i, stepped, 0), put(log, i, metrics, 1)

  _, one = jax.eval_shape(whole, member(state, 0), member(hyper, 0))
  log = jax.tree.map(
      lambda x: jnp.zeros((x.shape[0], count, *x.shape[1:]), x.dtype), one
  )
  return jax.lax.fori_loop(0, count, body, (state, log))


def _each(one: Callable[[Array], Any], steps: Array, max_steps: int) -> Any:
  """Calls `one` for each step; stacks what it gives, with zeros behind."""
  log = _zeros(jax.eval_shape(one, jnp.int32(0)), max_steps)
  return jax.lax.fori_loop(
      0, steps, lambda number, log: _put(log, number, one(number)), log
  )


def _zeros(shapes: Any, size: int) -> Any:
  return jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), shapes)


def _put(log: Any, index: Any, values: Any) -> Any:
  return jax.tree.map(lambda a, x: a.at[index].set(x), log, values)
