"""The exact fast paths: equal to automatic differentiation, and to each other."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarking import exact as exact_lib
from experiments.benchmarking import gradients as gradients_lib
from jumprelu.ops import (
    active_pairs,
    dense,
    latent_major,
    native,
    pallas,
    sparse,
)
from jumprelu.training import optim
from tests.ops import one_batch

# Most latents of most cases are frequent; by ranks, none is thought so.
_PATHS = ('dense', 'sparse', 'sparse, by ranks', 'native', 'pallas')
# Ways with room for some selected latents a row.
_CAPPED = ('sparse', 'pallas')
# With little room they all do what `dense` does: one tells for the others.
_CASES_OF = {
    'sparse': tuple(one_batch.CASES),
    'pallas': ('pre-encoder bias, log thresholds', 'an L0 of 1'),
}
_OVERFLOWS = [(name, path) for path in _CAPPED for name in _CASES_OF[path]]
# Paths that leave rows without a gradient alone.
_LEAVES_ROWS = ('native', 'pallas')
# Kernels for GPUs run elsewhere as well, slowly.
_INTERPRET = jax.default_backend() != 'gpu'
# Large enough for every case, and too small for each of them.
_ROOMY, _TIGHT = 1000, 8
# Step 35, counted from 0: 1 - .999^36.
_STEP = 35
_RATES = active_pairs.AdamScalars(
    jnp.float32(1e-3), jnp.float32(-np.expm1(36 * np.log(0.999))), jnp.int32(3)
)

# The functions of each path.
_FUNCTIONS = {
    'gradients': {
        'dense': dense.gradients,
        'sparse': gradients_lib.compute_sparse,
        'native': gradients_lib.compute_native,
        'pallas': gradients_lib.compute_pallas,
    },
    'step': {
        'dense': dense.step,
        'sparse': sparse.step,
        'native': native.step,
        'pallas': pallas.step,
    },
}


@functools.cache
def _case(name):
  return one_batch.make(**one_batch.CASES[name])


def _need(path):
  if path == 'native' and native.why_not():
    pytest.skip(native.why_not())


@functools.cache
def _compiled(what, path, settings, cap=_ROOMY):
  """The compiled gradients or step of a path; tight is where few rows fit."""
  path, _, how = path.partition(', ')
  call = functools.partial(_FUNCTIONS[what][path], settings=settings)
  if path in _CAPPED:
    call = functools.partial(call, cap=_TIGHT if how == 'tight' else cap)
  if path == 'pallas':
    call = functools.partial(call, interpret=_INTERPRET)
  if how == 'by ranks':
    call = mock.patch.object(latent_major, '_FREQUENT', np.inf)(call)
  return jax.jit(call)


def _gradients(path, case, **changes):
  _need(path)
  call = _compiled('gradients', path, case.settings)
  batch = case.batch._replace(**changes)
  return call(batch, case.params['W_enc'], case.params['W_dec'])


def _step(path, case, **changes):
  """One step, from second moments that are behind where a path leaves rows."""
  _need(path)
  batch = case.batch._replace(**changes)
  matrices = case.matrices
  if not path.startswith(_LEAVES_ROWS):
    matrices = _caught_up(matrices, case.settings, _RATES.clock)
  return _compiled('step', path, case.settings)(matrices, batch, _RATES)


def _up_to_date(path, matrices, settings):
  """The matrices after a step, all rows of them."""
  if not path.startswith(_LEAVES_ROWS):
    return matrices
  catch_up = native.catch_up if path == 'native' else pallas.catch_up
  return catch_up(matrices, _RATES.clock + 1, b2=settings.b2)


def _caught_up(matrices, settings, clock):
  """The matrices as if every row had been touched by then."""
  behind = np.asarray(clock - matrices.touched, np.float64)[:, None]
  decay = (settings.b2**behind).astype(np.float32)
  return matrices._replace(
      nu_encoder=decay * matrices.nu_encoder,
      nu_decoder=decay * matrices.nu_decoder,
      touched=jnp.full_like(matrices.touched, clock),
  )


def _close(found, expected, tolerance, name):
  """Equal to `tolerance` of the array's largest entry."""
  expected = np.asarray(expected, np.float64)
  atol = tolerance * np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


def _named(W_enc, W_dec, rest):
  """The gradients by the names of parameters."""
  return {
      'W_enc': W_enc,
      'W_dec': W_dec,
      'b_enc': rest.b_enc,
      'b_dec': rest.b_dec,
      'threshold': rest.threshold,
  }


def _cases():
  """Each case by each path; most of those that are interpreted are slow."""
  for path in _PATHS:
    for number, name in enumerate(one_batch.CASES):
      slow = path == 'pallas' and number > 1
      yield pytest.param(name, path, marks=[pytest.mark.slow] if slow else [])
  for name, path in _OVERFLOWS:
    yield name, f'{path}, tight'


@pytest.mark.parametrize(('name', 'path'), list(_cases()))
def test_gradients_equal_those_of_automatic_differentiation(name, path):
  case = _case(name)
  found = _gradients(path, case)
  rest = found[-1]
  exact = exact_lib.gradients(
      case.batch,
      case.params['W_enc'],
      case.params['W_dec'],
      settings=case.settings,
  )
  for parameter, value in _named(*found).items():
    _close(value, exact[parameter], 1e-6, parameter)
    if parameter == 'threshold' and 'log_threshold' in case.params:
      parameter, value = 'log_threshold', value * case.batch.threshold
    # The oracle's own sums of a thousand terms are not more exact than this.
    close = 1e-6 if parameter != 'b_dec' else 2e-6
    _close(value, case.grads[parameter], close, parameter)
  np.testing.assert_array_equal(rest.fired, case.parts.fired)
  np.testing.assert_allclose(rest.l0, case.parts.l0, rtol=1e-6)
  np.testing.assert_allclose(
      rest.reconstruction, case.parts.reconstruction, rtol=1e-6
  )
  assert rest.ok


def _selected(case):
  distance = np.asarray(case.batch.pre_acts) - np.asarray(case.batch.threshold)
  keep = np.asarray(case.batch.keep)[:, None]
  return ((distance > -case.settings.bandwidth / 2) & keep).sum(axis=1)


@pytest.mark.parametrize(('name', 'path'), _OVERFLOWS)
def test_rows_that_overflow_are_counted(name, path):
  case = _case(name)
  *_, rest = _gradients(f'{path}, tight', case)
  assert rest.overflow == (_selected(case) > _TIGHT).sum()
  # In all cases but one there are such rows.
  assert (rest.overflow > 0) == (name != 'an L0 of 1')
  assert _gradients(path, case)[-1].overflow == 0


@pytest.mark.parametrize('path', _CAPPED)
def test_rows_may_fill_all_the_room_there_is(path):
  case = _case('an L0 of 1')
  cap = int(_selected(case).max())
  found = _gradients(path, case)
  call = _compiled('gradients', path, case.settings, cap)
  full = call(case.batch, case.params['W_enc'], case.params['W_dec'])
  assert full[-1].overflow == 0
  for name, value in _named(*full).items():
    _close(value, _named(*found)[name], 1e-6, name)


@pytest.mark.parametrize('path', _LEAVES_ROWS)
def test_latents_without_a_gradient_are_not_touched_by_a_step(path):
  case = _case('an L0 of 1')
  end, rest = _step(path, case)
  still = np.asarray(rest.fired) == 0
  near = np.asarray(case.batch.pre_acts) - np.asarray(case.batch.threshold)
  near = np.abs(near)
  still &= ~(near < case.settings.bandwidth / 2).any(axis=0)
  assert 0.1 < still.mean() < 1
  for field in active_pairs.Matrices._fields:
    before, after = getattr(case.matrices, field), getattr(end, field)
    np.testing.assert_array_equal(after[still], before[still], field)
    assert (np.asarray(after) != np.asarray(before)).any(), field


@pytest.mark.parametrize(('name', 'path'), list(_cases()))
def test_a_step_in_place_is_the_optimisers_update(name, path):
  case = _case(name)
  # The optimiser knows no rows that have been left alone: they catch up before.
  nu_of = {'W_enc': 'nu_encoder', 'W_dec': 'nu_decoder'}
  fresh = _caught_up(case.matrices, case.settings, _RATES.clock)
  end, rest = _step(path, case)
  end = _up_to_date(path, end, case.settings)
  assert (end.touched == _RATES.clock + 1).all()
  config = optim.Config(b2=case.settings.b2)
  params, nu = optim.update(
      {'W_enc': fresh.encoder, 'W_dec': fresh.decoder},
      {name: getattr(fresh, field) for name, field in nu_of.items()},
      {'W_enc': case.grads['W_enc'].T, 'W_dec': case.grads['W_dec']},
      step=_STEP,
      learning_rate=_RATES.learning_rate,
      config=config,
  )
  for name, field in nu_of.items():
    _close(getattr(end, field), nu[name], 2e-6, field)
    field = field.removeprefix('nu_')
    # Adam divides by roots of squares: small gradients come out magnified.
    _close(getattr(end, field), params[name], 1e-5, field)
  # What is no matrix's is told as by `gradients`.
  _, _, told = _gradients(path, case)
  for field in told._fields:
    close = 1e-6 if field != 'b_dec' else 2e-6
    _close(getattr(rest, field), getattr(told, field), close, field)


@pytest.mark.parametrize('path', _PATHS)
@pytest.mark.parametrize('field', ['inputs', 'targets', 'pre_acts'])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(value, field, path):
  case = _case('pre-encoder bias, log thresholds')
  changes = _damaged(case, value, field)
  *_, rest = _gradients(path, case, **changes)
  assert not rest.ok


def _damaged(case, value, field):
  row = int(np.flatnonzero(case.batch.keep)[5])
  changes = {field: getattr(case.batch, field).at[row, 3].set(value)}
  if field == 'inputs':
    changes['pre_acts'] = case.batch.pre_acts.at[row].set(value)
  return changes


@pytest.mark.parametrize('path', (*_PATHS, *(f'{p}, tight' for p in _CAPPED)))
@pytest.mark.parametrize('field', ['inputs', 'targets', 'pre_acts'])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_finite_is_not_taken(value, field, path):
  case = _case('pre-encoder bias, log thresholds')
  end, rest = _step(path, case, **_damaged(case, value, field))
  assert not rest.ok
  start = case.matrices
  if not path.startswith(_LEAVES_ROWS):
    start = _caught_up(start, case.settings, _RATES.clock)
  jax.tree.map(np.testing.assert_array_equal, end, start)


def test_gradients_and_steps_are_the_same_bits_each_time():
  case = _case('Zipf frequencies')
  for path in ('sparse', 'native', 'pallas'):
    first, second = _gradients(path, case), _gradients(path, case)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    first, second = _step(path, case), _step(path, case)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_the_native_step_refuses_shapes_that_do_not_fit():
  _need('native')
  case = _case('a transcoder')
  with pytest.raises(jax.errors.JaxRuntimeError, match='do not fit'):
    jax.block_until_ready(
        _step('native', case, threshold=case.batch.threshold[:-1])
    )
