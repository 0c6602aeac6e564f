"""Loops inside a compiled call that stack what each turn of them reports.

Their number of turns is an argument of the call: what they stack has room for
`most` of them, with zeros behind those that were taken.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Int


def each(
    one: Callable[[Array], Any], count: Int[Array, ''], *, most: int
) -> Any:
  """Stacks what `one` gives for 0, 1, ... `count` - 1."""
  log = _zeros(jax.eval_shape(one, jnp.int32(0)), most)
  return jax.lax.fori_loop(
      0, count, lambda number, log: _put(log, number, one(number), 0), log
  )


def through(
    take: Callable[[Any, Array], tuple[Any, Any]],
    state: Any,
    count: Int[Array, ''],
    *,
    most: int,
) -> tuple[Any, Any]:
  """Takes a state through `count` turns of `take`; stacks what they report."""

  def body(number, carry):
    state, log = carry
    state, metrics = take(state, number)
    return state, _put(log, number, metrics, 0)

  _, one = jax.eval_shape(take, state, jnp.int32(0))
  return jax.lax.fori_loop(0, count, body, (state, _zeros(one, most)))


def in_turn(
    take: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    given: Any,
    *,
    axis: int,
) -> tuple[Any, Any]:
  """What `vmap` computes, one after another, in the state's own memory.

  `lax.map` would hold the state twice: what it reads and what it writes.

  Args:
    take: Takes one state, and what is given to it, to a new state and a report.
    state: All states, stacked.
    given: What each is given, stacked.
    axis: Along which the reports are stacked.

  Returns:
    The new states and the reports, stacked.
  """
  count = len(jax.tree.leaves(state)[0])
  if count == 1:  # Nothing to copy out and back.
    state, log = take(*jax.tree.map(lambda x: x[0], (state, given)))
    return (
        jax.tree.map(lambda x: x[None], state),
        jax.tree.map(lambda x: jnp.expand_dims(x, axis), log),
    )

  def body(i, carry):
    state, log = carry
    taken, report = take(_at(state, i), _at(given, i))
    return _put(state, i, taken, 0), _put(log, i, report, axis)

  _, one = jax.eval_shape(take, _at(state, 0), _at(given, 0))
  return jax.lax.fori_loop(0, count, body, (state, _zeros(one, count, axis)))


def _at(tree: Any, index: Any) -> Any:
  take = jax.lax.dynamic_index_in_dim
  return jax.tree.map(lambda x: take(x, index, keepdims=False), tree)


def _put(tree: Any, index: Any, values: Any, axis: int) -> Any:
  put = jax.lax.dynamic_update_index_in_dim
  return jax.tree.map(lambda a, x: put(a, x, index, axis), tree, values)


def _zeros(shapes: Any, size: int, axis: int = 0) -> Any:
  return jax.tree.map(
      lambda x: jnp.zeros((*x.shape[:axis], size, *x.shape[axis:]), x.dtype),
      shapes,
  )
