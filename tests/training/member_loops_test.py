"""Loops that stack what their turns report, against NumPy and `vmap`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.training import member_loops


@pytest.mark.parametrize('count', [0, 2, 4])
def test_each_leaves_zeros_behind_what_it_counted(count):
  @jax.jit
  def run(count):
    return member_loops.each(lambda i: {'x': i + 1.0}, count, most=4)

  found = run(jnp.int32(count))['x']
  expected = np.where(np.arange(4) < count, np.arange(4) + 1.0, 0)
  np.testing.assert_array_equal(found, expected)


def test_through_carries_a_state_and_stacks_reports():
  @jax.jit
  def run(count):
    return member_loops.through(
        lambda x, i: (x + i, x), jnp.float32(10), count, most=4
    )

  state, log = run(jnp.int32(3))
  assert state == 10 + 0 + 1 + 2
  np.testing.assert_array_equal(log, [10, 10, 11, 0])


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('members', [1, 3])
def test_in_turn_is_vmap_with_reports_along_an_axis(members, axis):
  rng = np.random.default_rng(0)
  state = {'w': jnp.asarray(rng.standard_normal((members, 5)))}
  given = jnp.arange(members, dtype=jnp.float32)

  def whole(state, given):
    log = jnp.stack([state['w'].sum() * given, given])
    return {'w': state['w'] * given}, log

  run = jax.jit(functools.partial(member_loops.in_turn, whole, axis=axis))
  found, log = run(state, given)
  expected, logs = jax.vmap(whole, out_axes=(0, axis))(state, given)
  np.testing.assert_array_equal(found['w'], expected['w'])
  np.testing.assert_allclose(log, logs, rtol=1e-6)
