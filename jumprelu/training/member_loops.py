"""The loops of a segment, for which `lax.scan` and `lax.map` do not fit.

`scan_steps` is a scan whose number of steps is an argument of the compiled
call. The length of `lax.scan` is a constant, so the shorter last segment of a
run would be compiled anew.

`map_members` is a map that writes each member's new state over the old one.
`lax.map` holds the states of a group twice: its input and its output. For the
native step of five members with 32,768 latents at 16 dimensions, whose state is
45 MB, the CPU compiler's `memory_analysis` counts 14 MB of temporaries here and
59 MB with `lax.map`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Int

# Pytrees: the state of a loop, and the hyper-parameters of members.
State = TypeVar('State')
Hyper = TypeVar('Hyper')


def scan_steps(
    body: Callable[[State, Array], tuple[State, Any]],
    state: State,
    steps: Int[Array, ''],
    max_steps: int,
) -> tuple[State, Any]:
  """Returns the last state and the outputs of a scan over 0 ... `steps` - 1.

  Args:
    body: Maps state and step number to the new state and the step's outputs.
    state: The first state.
    steps: The number of steps.
    max_steps: The number of rows of the stacked outputs; rows from `steps` on
      are zeros.
  """

  def write_row(number, carry):
    state, rows = carry
    state, row = body(state, number)
    return state, _write(rows, number, row, 0)

  _, row = jax.eval_shape(body, state, jnp.int32(0))
  rows = _stacked_zeros(row, max_steps, 0)
  return jax.lax.fori_loop(0, steps, write_row, (state, rows))


def map_members(
    run: Callable[[State, Hyper], tuple[State, Any]],
    state: State,
    hyper: Hyper,
    *,
    axis: int,
) -> tuple[State, Any]:
  """Returns the states and metrics of `vmap(run)`, one member after another.

  Args:
    run: Maps a member's state and hyper-parameters to new state and metrics.
    state: The states of the members, stacked.
    hyper: The hyper-parameters of the members, stacked.
    axis: The axis along which the metrics are stacked.
  """
  members = len(jax.tree.leaves(state)[0])
  if members == 1:  # A loop would copy the only member twice.
    state, metrics = run(*jax.tree.map(lambda x: x[0], (state, hyper)))
    return (
        jax.tree.map(lambda x: x[None], state),
        jax.tree.map(lambda x: jnp.expand_dims(x, axis), metrics),
    )

  def run_member(member, carry):
    state, metrics = carry
    new, row = run(_read(state, member), _read(hyper, member))
    return _write(state, member, new, 0), _write(metrics, member, row, axis)

  _, row = jax.eval_shape(run, _read(state, 0), _read(hyper, 0))
  metrics = _stacked_zeros(row, members, axis)
  return jax.lax.fori_loop(0, members, run_member, (state, metrics))


def _read(tree: Any, index: Any) -> Any:
  read = jax.lax.dynamic_index_in_dim
  return jax.tree.map(lambda x: read(x, index, keepdims=False), tree)


def _write(tree: Any, index: Any, values: Any, axis: int) -> Any:
  write = jax.lax.dynamic_update_index_in_dim
  return jax.tree.map(lambda a, x: write(a, x, index, axis), tree, values)


def _stacked_zeros(shapes: Any, size: int, axis: int) -> Any:
  return jax.tree.map(
      lambda x: jnp.zeros((*x.shape[:axis], size, *x.shape[axis:]), x.dtype),
      shapes,
  )
