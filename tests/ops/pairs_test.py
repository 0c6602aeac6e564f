"""The exact fast paths: equal to automatic differentiation, and to each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarking import exact as exact_lib
from jumprelu import optim
from jumprelu.ops import dense, native, pairs, sparse
from tests.ops import one_batch

_PATHS = ('dense', 'sparse', 'native')
# Large enough for every case, and too small for each of them.
_ROOMY, _TIGHT = 1000, 8
_RATES = pairs.Rates(jnp.float32(1e-3), jnp.float32(0.3), jnp.int32(3))


@functools.cache
def _case(name):
  return one_batch.make(**one_batch.CASES[name])


def _need(path):
  if path == 'native' and native.why_not():
    pytest.skip(native.why_not())


@functools.cache
def _gradients_by(path, settings):
  """The compiled gradients of a path."""
  if path == 'native':
    return jax.jit(functools.partial(native.gradients, settings=settings))

  def by_dense(batch, m):
    to_encoder, to_decoder, rest = dense.gradients(
        batch, m.encoder.T, m.decoder, settings=settings
    )
    return pairs.Gradients(to_encoder.T, to_decoder), rest

  def by_sparse(batch, m):
    return sparse.gradients(
        batch, m.encoder, m.decoder, settings=settings, cap=_ROOMY
    )

  return jax.jit({'dense': by_dense, 'sparse': by_sparse}[path])


@functools.cache
def _step_by(path, settings):
  """The compiled step of a path; dense is where no row fits."""
  if path == 'native':
    return jax.jit(functools.partial(native.step, settings=settings))
  cap = {'dense': 1, 'sparse': _ROOMY, 'tight': _TIGHT}[path]
  return jax.jit(functools.partial(sparse.step, settings=settings, cap=cap))


def _gradients(path, case):
  _need(path)
  return _gradients_by(path, case.settings)(case.batch, case.matrices)


def _step(path, case, *, matrices=None, correction=0.3, **changes):
  _need(path)
  return _step_by(path, case.settings)(
      matrices or case.matrices,
      case.batch._replace(**changes),
      _RATES._replace(correction=jnp.float32(correction)),
  )


def _caught_up(matrices, settings):
  """The matrices as if every row had been touched."""
  now = functools.partial(
      pairs.decayed,
      touched=matrices.touched,
      clock=_RATES.clock + 1,
      b2=settings.b2,
  )
  return matrices._replace(
      nu_encoder=now(matrices.nu_encoder), nu_decoder=now(matrices.nu_decoder)
  )


def _close(found, expected, tolerance, name):
  """Equal to `tolerance` of the array's largest entry."""
  expected = np.asarray(expected, np.float64)
  atol = tolerance * np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


def _named(found, rest):
  """The gradients by the names of parameters."""
  return {
      'W_enc': found.encoder.T,
      'W_dec': found.decoder,
      'b_enc': rest.b_enc,
      'b_dec': rest.b_dec,
      'threshold': rest.threshold,
  }


@pytest.mark.parametrize('path', _PATHS)
@pytest.mark.parametrize('name', one_batch.CASES)
def test_gradients_equal_those_of_automatic_differentiation(name, path):
  case = _case(name)
  found, rest = _gradients(path, case)
  exact = exact_lib.gradients(
      case.batch,
      case.params['W_enc'],
      case.params['W_dec'],
      settings=case.settings,
  )
  for parameter, value in _named(found, rest).items():
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


@pytest.mark.parametrize('path', ['sparse', 'native', 'tight'])
@pytest.mark.parametrize('name', one_batch.CASES)
def test_a_lazy_step_ends_where_the_dense_one_does(name, path):
  case = _case(name)
  (dense_end, dense_rest), (end, rest) = _step('dense', case), _step(path, case)
  end, dense_end = (_caught_up(m, case.settings) for m in (end, dense_end))
  for field in ('nu_encoder', 'nu_decoder'):
    _close(getattr(end, field), getattr(dense_end, field), 2e-6, field)
  for field in ('encoder', 'decoder'):
    # Adam divides by roots of squares: small gradients come out magnified.
    _close(getattr(end, field), getattr(dense_end, field), 1e-5, field)
  longest = int(_selected(case).max())
  overflow = path == 'tight' and longest > _TIGHT
  assert (rest.overflow > 0) == overflow
  np.testing.assert_array_equal(rest.fired, dense_rest.fired)


def _selected(case):
  distance = np.asarray(case.batch.pre_acts) - np.asarray(case.batch.threshold)
  keep = np.asarray(case.batch.keep)[:, None]
  return ((distance > -case.settings.bandwidth / 2) & keep).sum(axis=1)


def test_rows_that_overflow_are_counted():
  case = _case('Zipf frequencies')
  _, rest = _step('tight', case)
  assert rest.overflow == (_selected(case) > _TIGHT).sum() > 0


def test_latents_without_a_gradient_are_not_touched_by_a_native_step():
  case = _case('an L0 of 1')
  end, rest = _step('native', case)
  still = np.asarray(rest.fired) == 0
  near = np.asarray(case.batch.pre_acts) - np.asarray(case.batch.threshold)
  near = np.abs(near)
  still &= ~(near < case.settings.bandwidth / 2).any(axis=0)
  assert 0.1 < still.mean() < 1
  for field in pairs.Matrices._fields:
    before, after = getattr(case.matrices, field), getattr(end, field)
    np.testing.assert_array_equal(after[still], before[still], field)
    assert (np.asarray(after) != np.asarray(before)).any(), field


@pytest.mark.parametrize('path', _PATHS)
def test_the_update_is_the_optimisers(path):
  case = _case('no pre-encoder bias')
  fresh = case.matrices._replace(touched=jnp.full(one_batch.WIDTH, 3))
  names = {'W_enc': 'encoder', 'W_dec': 'decoder'}
  config = optim.Config(b2=case.settings.b2)
  # Step 35 counted from 0: 1 - .999^36 = .03538.
  unbias = optim.correction(config, 35)
  np.testing.assert_allclose(unbias, 0.03538, rtol=1e-3)
  end, _ = _step(path, case, matrices=fresh, correction=unbias)
  nu = {n: getattr(fresh, f'nu_{f}') for n, f in names.items()}
  params, nu = optim.update(
      {'W_enc': fresh.encoder, 'W_dec': fresh.decoder},
      nu,
      {'W_enc': case.grads['W_enc'].T, 'W_dec': case.grads['W_dec']},
      step=35,
      learning_rate=1e-3,
      config=config,
  )
  end = _caught_up(end, case.settings)
  for name, field in names.items():
    _close(getattr(end, field), params[name], 1e-5, name)
    _close(getattr(end, f'nu_{field}'), nu[name], 2e-6, name)


@pytest.mark.parametrize('path', _PATHS)
@pytest.mark.parametrize('field', ['inputs', 'targets', 'pre_acts'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_not_taken(value, field, path):
  case = _case('pre-encoder bias, log thresholds')
  row = int(np.flatnonzero(case.batch.keep)[5])
  damaged = getattr(case.batch, field).at[row, 3].set(value)
  changes = {field: damaged}
  if field == 'inputs':
    changes['pre_acts'] = case.batch.pre_acts.at[row].set(value)
  end, rest = _step(path, case, **changes)
  if field == 'pre_acts' and np.isnan(value) and path == 'dense':
    # Nothing that is not a number is above a threshold: it has no part in it.
    assert rest.ok
    return
  assert not rest.ok
  for name in pairs.Matrices._fields:
    before, after = getattr(case.matrices, name), getattr(end, name)
    np.testing.assert_array_equal(after, before, name)


def test_native_and_sparse_steps_are_the_same_bits_each_time():
  case = _case('Zipf frequencies')
  for path in ('sparse', 'native'):
    first, second = _step(path, case), _step(path, case)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_the_native_step_refuses_shapes_that_do_not_fit():
  _need('native')
  case = _case('a transcoder')
  with pytest.raises(jax.errors.JaxRuntimeError, match='do not fit'):
    jax.block_until_ready(
        _step('native', case, threshold=case.batch.threshold[:-1])
    )
