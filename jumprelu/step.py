"""One training step of a whole suite, and a segment of steps in one call.

Inside a step the groups go one after another; a group is one SAE's step,
vmapped over its members where those lie on different devices, else taken member
by member. A segment loops over consecutive batches of a block and returns
metrics as arrays: nothing inside it waits for the host.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import blocks, optim, sharding, suite
from jumprelu.array_typing import Array, Bool, Float, Int

# A latent counts as dead in the metrics of training after so many kept rows
# without firing.
DEAD_AFTER = 100_000

# Where the counters of silence stop, far from int32's end.
_SILENT_MAX = 2**30


class Metrics(NamedTuple):
  """What a segment reports; zero behind the steps that it took."""

  # {group: {metric: [steps, members]}}.
  groups: dict[str, dict[str, Array]]
  # [steps]: rows of the batch that counted.
  kept: Array
  # [steps]: multipliers of the schedules.
  learning_rate: Array
  sparsity: Array


class _Batch(NamedTuple):
  """What all members of a group share in one step."""

  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  variance: Float[Array, '']
  step: Int[Array, '']
  learning_rate: Float[Array, '']
  sparsity: Float[Array, '']


# (state, block, first batch, number of steps) -> (state, metrics).
Segment = Callable[
    [suite.TrainState, blocks.Block, Array, Array],
    tuple[suite.TrainState, Metrics],
]


def make_segment(
    groups: Sequence[suite.Group],
    config: optim.Config,
    *,
    total_steps: int,
    batch: int,
    max_steps: int,
    mesh: Any = None,
) -> Segment:
  """Compiles steps on batches `first`, first + 1, ... of a block.

  The state is donated. The number of steps, at most `max_steps`, is an
  argument of the compiled call, so that the last segment of a run does not
  compile anew; metrics behind it are zero.
  """

  def step(block, state, index):
    rows = blocks.rows(block, index, batch)
    rate = optim.learning_rate_at(config, state.step, total_steps)
    sparsity = optim.sparsity_at(config, state.step, total_steps)
    states, metrics = {}, {}
    for group in groups:
      shared = _Batch(
          *_lay_out(group, block, rows, mesh=mesh),
          step=state.step,
          learning_rate=rate,
          sparsity=sparsity,
      )
      found = _group_step(
          group, state.groups[group.name], shared, config=config, mesh=mesh
      )
      # One group after the other, or their gradients and latents are in memory
      # together.
      found, rows = jax.lax.optimization_barrier((found, rows))
      states[group.name], metrics[group.name] = found
    state = suite.TrainState(groups=states, step=state.step + 1)
    kept = jnp.sum(rows[1], dtype=jnp.int32)
    metrics = Metrics(metrics, kept, rate, sparsity)
    if mesh is not None and mesh.size > 1:
      places = suite.state_shardings(groups, mesh=mesh)
      state = jax.lax.with_sharding_constraint(state, places)
      everywhere = sharding.replicated(mesh)
      metrics = jax.lax.with_sharding_constraint(metrics, everywhere)
    return state, metrics

  def segment(state, block, first, steps):
    def body(number, carry):
      state, log = carry
      state, metrics = step(block, state, first + number)
      return state, jax.tree.map(lambda a, x: a.at[number].set(x), log, metrics)

    _, one = jax.eval_shape(functools.partial(step, block), state, first)
    log = jax.tree.map(lambda x: jnp.zeros((max_steps, *x.shape), x.dtype), one)
    return jax.lax.fori_loop(0, steps, body, (state, log))

  return jax.jit(segment, donate_argnums=0)


def pooled_variance(
    targets: Float[Array, 'batch target_model'], keep: Bool[Array, ' batch']
) -> Float[Array, '']:
  """Mean squared distance of the kept rows from their mean."""
  rows = jnp.maximum(keep.sum(dtype=jnp.int32), 1)
  kept = jnp.where(keep[:, None], targets, 0.0)
  centred = kept - (kept.sum(axis=0) / rows)[None, :]
  squares = jnp.where(keep, jnp.square(centred).sum(axis=-1), 0.0)
  return squares.sum() / rows


def _lay_out(
    group: suite.Group,
    block: blocks.Block,
    rows: tuple[dict, Array],
    *,
    mesh: Any,
) -> tuple[Array, Array, Array, Array]:
  """Lays a batch out as the group wants it: the first fields of `_Batch`."""
  stored, keep = rows
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
  keep = lay(keep)
  return sources, targets, keep, pooled_variance(targets, keep)


def _group_step(
    group: suite.Group,
    state: suite.GroupState,
    shared: _Batch,
    *,
    config: optim.Config,
    mesh: Any,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Steps all members of a group; padding is cut off the metrics."""
  hyper = suite.hyper_parameters(group, suite.slots(group, mesh))
  step = functools.partial(member_step, group.sae, shared=shared, config=config)
  if suite.layout_of(group, mesh).members:
    state, metrics = jax.vmap(step)(state, hyper)
  else:
    # One member after the other: a batch of latents is in memory once, and on
    # CPU a member fits in the cache. The numbers are the same.
    state, metrics = _in_turn(step, state, hyper)
  members = len(group.members)
  return state, jax.tree.map(lambda x: x[:members], metrics)


def _in_turn(
    step: Callable, state: suite.GroupState, hyper: dict[str, Any]
) -> tuple[suite.GroupState, dict[str, Array]]:
  """What `vmap` computes, member by member, in the state's own memory.

  `lax.map` would hold the state twice: what it reads and what it writes.
  """
  hyper = jax.tree.map(jnp.asarray, hyper)

  def member(tree, i):
    index = jax.lax.dynamic_index_in_dim
    return jax.tree.map(lambda x: index(x, i, keepdims=False), tree)

  def put(tree, i, values):
    update = jax.lax.dynamic_update_index_in_dim
    return jax.tree.map(lambda a, x: update(a, x, i, 0), tree, values)

  def body(i, carry):
    state, log = carry
    stepped, metrics = step(member(state, i), member(hyper, i))
    return put(state, i, stepped), put(log, i, metrics)

  count = len(state.skipped)
  _, one = jax.eval_shape(step, member(state, 0), member(hyper, 0))
  log = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), one)
  return jax.lax.fori_loop(0, count, body, (state, log))


def member_step(
    sae: Any,
    state: suite.GroupState,
    hyper: dict[str, Array],
    *,
    shared: _Batch,
    config: optim.Config,
) -> tuple[suite.GroupState, dict[str, Array]]:
  """Steps one SAE, or leaves it as it is where anything is not finite."""

  def loss(params):
    return sae.loss(
        params,
        shared.inputs,
        shared.targets,
        keep=shared.keep,
        sparsity_coefficient=hyper['sparsity_coefficient'] * shared.sparsity,
        target_l0=hyper['target_l0'],
        silent=state.silent,
    )

  (_, parts), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
  params, nu = optim.update(
      state.params,
      state.nu,
      grads,
      step=shared.step,
      learning_rate=hyper['learning_rate'] * shared.learning_rate,
      config=config,
      unit_norm=sae.unit_norm_decoder,
  )
  kept = jnp.sum(shared.keep, dtype=jnp.int32)
  silent = jnp.minimum(state.silent + kept, _SILENT_MAX)
  stepped = state.replace(
      params=params | parts.carried,
      nu=nu,
      silent=jnp.where(parts.fired > 0, 0, silent),
  )
  # One NaN or infinity anywhere makes the sum of squares one.
  squares = [jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)]
  ok = jnp.isfinite(parts.loss) & jnp.isfinite(sum(squares))
  state = jax.tree.map(
      lambda new, old: jnp.where(ok, new, old), stepped, state
  ).replace(skipped=state.skipped + jnp.where(ok, 0, 1))
  return state, {
      'loss': parts.loss,
      'reconstruction': parts.reconstruction,
      'fvu': parts.reconstruction / shared.variance,
      'l0': parts.l0,
      'dead_share': jnp.mean((state.silent >= DEAD_AFTER).astype(jnp.float32)),
      'skipped': state.skipped,
  }
