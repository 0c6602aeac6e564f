"""The exact fast steps equal automatic differentiation, and each other."""

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
from tests import native_library
from tests.ops import one_batch

# Most latents of most cases are frequent. 'by ranks' treats none as frequent,
# so that the loop over ranks is tested too.
_PATHS = (
    'dense',
    'sparse',
    'sparse, by ranks',
    'native',
    native_library.ENCODED,
    'pallas',
)
# Paths that limit the selected latents of a row.
_CAPPED = ('sparse', 'pallas')
# The cases that are also run with a low limit. Both paths then compute by dense
# products, so two cases suffice for the slower one.
_CASES_OF = {
    'sparse': tuple(one_batch.CASES),
    'pallas': ('pre-encoder bias, log thresholds', 'an L0 of 1'),
}
_OVERFLOWS = [(name, path) for path in _CAPPED for name in _CASES_OF[path]]
# Paths that do not touch rows without a gradient.
_SKIPS_ROWS = ('native', 'pallas')
# The GPU kernels run on other devices too, slowly.
_INTERPRET = jax.default_backend() != 'gpu'
# Limits above the rows of every case, and below some rows of nearly every case.
_HIGH_CAP, _LOW_CAP = 1000, 8
# Counted from 0, so that the bias correction is 1 - 0.999^36.
_STEP = 35
_SCALARS = active_pairs.AdamScalars(
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


@functools.cache
def _compiled(name, path, settings, cap=_HIGH_CAP):
  """Returns the compiled gradients or step of a path."""
  path, _, variation = path.partition(', ')
  call = functools.partial(_FUNCTIONS[name][path], settings=settings)
  if path in _CAPPED:
    call = functools.partial(
        call, cap=_LOW_CAP if variation == 'low cap' else cap
    )
  if path == 'pallas':
    call = functools.partial(call, interpret=_INTERPRET)
  if variation == 'by ranks':
    call = mock.patch.object(latent_major, '_FREQUENT', np.inf)(call)
  return jax.jit(call)


def _batch(path, case, changes):
  batch = case.batch._replace(**changes)
  if path != native_library.ENCODED:
    return batch
  bias = case.params['b_enc']
  if 'pre_acts' in changes:
    # A bias that is not finite has pre-activations that are not.
    damaged = jnp.where(jnp.isfinite(batch.pre_acts), 0, batch.pre_acts)
    bias += damaged.sum(axis=0)
  return batch._replace(b_enc=bias, pre_acts=batch.pre_acts * jnp.nan)


def _gradients(path, case, **changes):
  native_library.need(path)
  call = _compiled('gradients', path, case.settings)
  batch = _batch(path, case, changes)
  return call(batch, case.params['W_enc'], case.params['W_dec'])


def _step(path, case, **changes):
  """Returns the results of a step.

  If the path skips rows, some second moments start without their last decays.
  """
  native_library.need(path)
  batch = _batch(path, case, changes)
  matrices = case.matrices
  if not path.startswith(_SKIPS_ROWS):
    matrices = _caught_up(matrices, case.settings, _SCALARS.clock)
  return _compiled('step', path, case.settings)(matrices, batch, _SCALARS)


def _up_to_date(path, matrices, settings):
  """Returns the matrices after a step, with all second moments decayed."""
  if not path.startswith(_SKIPS_ROWS):
    return matrices
  native_too = path.startswith('native')
  catch_up = native.catch_up if native_too else pallas.catch_up
  return catch_up(matrices, _SCALARS.clock + 1, b2=settings.b2)


def _caught_up(matrices, settings, clock):
  """Returns the matrices with all second moments decayed up to `clock`."""
  missed = np.asarray(clock - matrices.touched, np.float64)[:, None]
  decay = (settings.b2**missed).astype(np.float32)
  return matrices._replace(
      nu_encoder=decay * matrices.nu_encoder,
      nu_decoder=decay * matrices.nu_decoder,
      touched=jnp.full_like(matrices.touched, clock),
  )


def _assert_close(actual, expected, tolerance, name):
  """Checks equality up to `tolerance` of the array's largest entry."""
  expected = np.asarray(expected, np.float64)
  atol = tolerance * np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)


def _named(W_enc, W_dec, result):
  """Returns the gradients by parameter name."""
  return {
      'W_enc': W_enc,
      'W_dec': W_dec,
      'b_enc': result.b_enc,
      'b_dec': result.b_dec,
      'threshold': result.threshold,
  }


def _cases():
  """Yields each case for each path; two of each are fast if it is slow."""
  for path in _PATHS:
    for number, name in enumerate(one_batch.CASES):
      slow = not path.startswith(('dense', 'native')) and number > 1
      yield pytest.param(name, path, marks=[pytest.mark.slow] if slow else [])
  for number, (name, path) in enumerate(_OVERFLOWS):
    marks = [pytest.mark.slow] if number else []
    yield pytest.param(name, f'{path}, low cap', marks=marks)


@pytest.mark.parametrize(('name', 'path'), list(_cases()))
def test_gradients_equal_those_of_automatic_differentiation(name, path):
  case = _case(name)
  grads = _gradients(path, case)
  result = grads[-1]
  exact = exact_lib.gradients(
      case.batch,
      case.params['W_enc'],
      case.params['W_dec'],
      settings=case.settings,
  )
  for parameter, value in _named(*grads).items():
    _assert_close(value, exact[parameter], 1e-6, parameter)
    if parameter == 'threshold' and 'log_threshold' in case.params:
      parameter, value = 'log_threshold', value * case.batch.threshold
    # The oracle sums a thousand terms in float32, which limits its precision.
    tolerance = 1e-6 if parameter != 'b_dec' else 2e-6
    _assert_close(value, case.grads[parameter], tolerance, parameter)
  np.testing.assert_array_equal(result.fired, case.parts.fired)
  np.testing.assert_allclose(result.l0, case.parts.l0, rtol=1e-6)
  np.testing.assert_allclose(
      result.reconstruction, case.parts.reconstruction, rtol=1e-6
  )
  assert result.ok


def _selected(case):
  distance = np.asarray(case.batch.pre_acts) - np.asarray(case.batch.threshold)
  keep = np.asarray(case.batch.keep)[:, None]
  return ((distance > -case.settings.bandwidth / 2) & keep).sum(axis=1)


@pytest.mark.parametrize(('name', 'path'), _OVERFLOWS)
def test_rows_that_overflow_are_counted(name, path):
  case = _case(name)
  *_, result = _gradients(f'{path}, low cap', case)
  assert result.overflow == (_selected(case) > _LOW_CAP).sum()
  # All cases but one have such rows.
  assert (result.overflow > 0) == (name != 'an L0 of 1')
  assert _gradients(path, case)[-1].overflow == 0


@pytest.mark.parametrize('path', _CAPPED)
def test_a_row_may_have_as_many_selected_latents_as_the_cap(path):
  case = _case('an L0 of 1')
  cap = int(_selected(case).max())
  expected = _named(*_gradients(path, case))
  call = _compiled('gradients', path, case.settings, cap)
  full = call(case.batch, case.params['W_enc'], case.params['W_dec'])
  assert full[-1].overflow == 0
  for name, value in _named(*full).items():
    _assert_close(value, expected[name], 1e-6, name)


@pytest.mark.parametrize('path', _SKIPS_ROWS)
def test_latents_without_a_gradient_are_not_touched_by_a_step(path):
  case = _case('an L0 of 1')
  end, result = _step(path, case)
  idle = np.asarray(result.fired) == 0
  near = np.asarray(case.batch.pre_acts) - np.asarray(case.batch.threshold)
  near = np.abs(near)
  idle &= ~(near < case.settings.bandwidth / 2).any(axis=0)
  assert 0.1 < idle.mean() < 1
  for field in active_pairs.Matrices._fields:
    before, after = getattr(case.matrices, field), getattr(end, field)
    np.testing.assert_array_equal(after[idle], before[idle], field)
    assert (np.asarray(after) != np.asarray(before)).any(), field


@pytest.mark.parametrize(('name', 'path'), list(_cases()))
def test_a_step_in_place_is_the_optimisers_update(name, path):
  case = _case(name)
  # The optimiser has no skipped rows, so all second moments decay beforehand.
  nu_of = {'W_enc': 'nu_encoder', 'W_dec': 'nu_decoder'}
  start = _caught_up(case.matrices, case.settings, _SCALARS.clock)
  end, result = _step(path, case)
  end = _up_to_date(path, end, case.settings)
  assert (end.touched == _SCALARS.clock + 1).all()
  config = optim.Config(b2=case.settings.b2)
  params, nu = optim.update(
      {'W_enc': start.encoder, 'W_dec': start.decoder},
      {name: getattr(start, field) for name, field in nu_of.items()},
      {'W_enc': case.grads['W_enc'].T, 'W_dec': case.grads['W_dec']},
      step=_STEP,
      learning_rate=_SCALARS.learning_rate,
      config=config,
  )
  for name, field in nu_of.items():
    _assert_close(getattr(end, field), nu[name], 2e-6, field)
    field = field.removeprefix('nu_')
    # Adam divides by the root of squares, which magnifies small gradients.
    _assert_close(getattr(end, field), params[name], 1e-5, field)
  # The other results are those of `gradients`.
  *_, expected = _gradients(path, case)
  for field in expected._fields:
    tolerance = 1e-6 if field != 'b_dec' else 2e-6
    _assert_close(
        getattr(result, field), getattr(expected, field), tolerance, field
    )


@pytest.mark.parametrize('path', _PATHS)
@pytest.mark.parametrize('field', ['inputs', 'targets', 'pre_acts'])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_non_finite_arrays_are_detected(value, field, path):
  case = _case('pre-encoder bias, log thresholds')
  changes = _damaged(case, value, field)
  *_, result = _gradients(path, case, **changes)
  assert not result.ok


def _damaged(case, value, field):
  row = int(np.flatnonzero(case.batch.keep)[5])
  changes = {field: getattr(case.batch, field).at[row, 3].set(value)}
  if field == 'inputs':
    changes['pre_acts'] = case.batch.pre_acts.at[row].set(value)
  return changes


@pytest.mark.parametrize('path', (*_PATHS, *(f'{p}, low cap' for p in _CAPPED)))
@pytest.mark.parametrize('field', ['inputs', 'targets', 'pre_acts'])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_non_finite_step_is_skipped(value, field, path):
  case = _case('pre-encoder bias, log thresholds')
  end, result = _step(path, case, **_damaged(case, value, field))
  assert not result.ok
  start = case.matrices
  if not path.startswith(_SKIPS_ROWS):
    start = _caught_up(start, case.settings, _SCALARS.clock)
  jax.tree.map(np.testing.assert_array_equal, end, start)


def test_gradients_and_steps_are_reproducible_to_the_bit():
  case = _case('Zipf frequencies')
  for path in ('sparse', 'native', native_library.ENCODED, 'pallas'):
    first, second = _gradients(path, case), _gradients(path, case)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    first, second = _step(path, case), _step(path, case)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_the_native_step_refuses_shapes_that_do_not_fit():
  native_library.need('native')
  case = _case('a transcoder')
  with pytest.raises(jax.errors.JaxRuntimeError, match='do not fit'):
    jax.block_until_ready(
        _step('native', case, threshold=case.batch.threshold[:-1])
    )
