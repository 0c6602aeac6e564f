"""The loops of a segment, against NumPy, `lax.scan` and `vmap`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.training import member_loops


@pytest.mark.parametrize('steps', [0, 2, 4])
def test_scan_steps_is_a_scan_with_rows_of_zeros_after_the_steps(steps):
  def body(state, number):
    return state + number, {'state': state, 'next': number + 1.0}

  scan = functools.partial(member_loops.scan_steps, body, max_steps=4)
  state, rows = jax.jit(scan)(jnp.float32(10), steps=jnp.int32(steps))
  expected, log = jax.lax.scan(body, jnp.float32(10), jnp.arange(steps))
  assert state == expected
  for name, values in rows.items():
    np.testing.assert_array_equal(values[:steps], log[name])
    np.testing.assert_array_equal(values[steps:], np.zeros(4 - steps))


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('members', [1, 3])
def test_map_members_is_vmap_with_metrics_along_an_axis(members, axis):
  rng = np.random.default_rng(0)
  state = {'w': jnp.asarray(rng.standard_normal((members, 5)))}
  hyper = jnp.arange(members, dtype=jnp.float32)

  def run(state, hyper):
    metrics = jnp.stack([state['w'].sum() * hyper, hyper])
    return {'w': state['w'] * hyper}, metrics

  mapped = jax.jit(functools.partial(member_loops.map_members, run, axis=axis))
  end, metrics = mapped(state, hyper)
  expected, logs = jax.vmap(run, out_axes=(0, axis))(state, hyper)
  np.testing.assert_array_equal(end['w'], expected['w'])
  np.testing.assert_allclose(metrics, logs, rtol=1e-6)
