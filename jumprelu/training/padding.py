"""Padding of a group's members, so that the mesh divides their number."""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp

from jumprelu.training import suite


def strip(
    state: suite.TrainState,
    groups: Sequence[suite.Group],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> suite.TrainState:
  """Returns the state without padding, sharded as `suite.stored_state`.

  A state without padding is returned unchanged.
  """
  counts = tuple((group.name, len(group.members)) for group in groups)
  if counts == _padded(groups, mesh):
    return state
  places = suite.stored_shardings(groups, mesh)
  resize = jax.jit(_resize, static_argnums=1, out_shardings=places)
  return resize(state, counts)


def add(
    state: suite.TrainState,
    groups: Sequence[suite.Group],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> suite.TrainState:
  """Returns the state with padding, sharded by `suite.state_shardings`."""
  places = suite.state_shardings(groups, mesh=mesh)
  pad = jax.jit(_resize, static_argnums=1, out_shardings=places)
  return pad(state, _padded(groups, mesh))


def _padded(
    groups: Sequence[suite.Group], mesh: jax.sharding.Mesh | None
) -> tuple[tuple[str, int], ...]:
  return tuple((group.name, suite.slots(group, mesh)) for group in groups)


def _resize(
    state: suite.TrainState, counts: tuple[tuple[str, int], ...]
) -> suite.TrainState:
  """Returns the state with `counts` members of each group.

  Surplus members are removed, and missing ones are copies of the last member.

  Args:
    state: The state.
    counts: The name and the new number of members of each group.
  """

  def resize(x, count):
    return jnp.concatenate([x[:count], *[x[-1:]] * (count - len(x))])

  groups = {
      name: jax.tree.map(lambda x, n=count: resize(x, n), state.groups[name])
      for name, count in counts
  }
  return dataclasses.replace(state, groups=groups)
