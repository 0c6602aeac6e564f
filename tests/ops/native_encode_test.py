"""The native encoder finds the pairs of a float32 product, and only those."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.ops import native
from tests import native_library

_ROWS, _WIDTH = 67, 150
# The summation error of a float32 product of d terms, relative to the norms of
# both factors, is at most d times this.
_EPSILON = 2.0**-24


@pytest.fixture(scope='module', autouse=True)
def kernel():
  """Loads the library."""
  native_library.need(native_library.ENCODED)
  wanted = os.environ.get('JUMPRELU_INTEGER_KERNEL')
  assert wanted in (None, native.encode_kernel())


def _normal(rng, d):
  x = rng.standard_normal((_ROWS, d)).astype(np.float32) / np.sqrt(d)
  w = rng.standard_normal((_WIDTH, d)).astype(np.float32) / np.sqrt(d)
  bias = 0.1 * rng.standard_normal(_WIDTH)
  threshold = np.abs(rng.standard_normal(_WIDTH)) / np.sqrt(d)
  return x, w, bias.astype(np.float32), threshold.astype(np.float32)


def _zeros(x, w, bias, threshold):
  x[::3], w[::4], bias[::2], threshold[::5] = 0, 0, 0, 0


def _no_thresholds(x, w, bias, threshold):
  bias[:], threshold[:] = 0, 0


def _equal_rows(x, w, bias, threshold):
  # Pre-activations are exactly at their thresholds.
  x[:50] = w[:50]
  bias[:] = 0
  threshold[:50] = np.square(w[:50]).sum(axis=1)


def _denormals(x, w, bias, threshold):
  x[::2] *= 1e-38
  w[::3] *= 1e-42
  threshold[::3], bias[::3] = 0, 0


def _huge(x, w, bias, threshold):
  x[::2] *= 1e14
  x[1::8] *= 1e17
  w[::3] *= 1e14
  threshold[::3] *= 1e14


def _one_large_entry(x, w, bias, threshold):
  x[::2, 0] = 100
  w[::3, -1] = -30


def _few_values(x, w, bias, threshold):
  np.sign(x, out=x)
  np.round(w, 1, out=w)
  bias[:] = 0


_CASES = {
    'normal': lambda *arrays: None,
    'zeros': _zeros,
    'no thresholds': _no_thresholds,
    'equal rows': _equal_rows,
    'denormals': _denormals,
    'huge': _huge,
    'one large entry': _one_large_entry,
    'few values': _few_values,
}


def _encode(*arrays, room=_WIDTH, bandwidth=0.0):
  return jax.device_get(
      native.encode(*map(jnp.asarray, arrays), room=room, bandwidth=bandwidth)
  )


def _dense(encoded):
  """Returns the mask of the pairs, and their pre-activations."""
  used = np.arange(encoded.latents.shape[1]) < encoded.counts[:, None]
  mask = np.zeros((_ROWS, _WIDTH), bool)
  values = np.zeros((_ROWS, _WIDTH), np.float32)
  rows = np.nonzero(used)[0]
  mask[rows, encoded.latents[used]] = True
  values[rows, encoded.latents[used]] = encoded.values[used]
  return mask, values


@pytest.mark.parametrize('bandwidth', [0.0, 0.01])
@pytest.mark.parametrize('d', [1, 7, 8, 40, 515])
@pytest.mark.parametrize('case', list(_CASES))
def test_pairs_and_values_are_those_of_a_product_in_float64(case, d, bandwidth):
  x, w, bias, threshold = _normal(np.random.default_rng(d), d)
  _CASES[case](x, w, bias, threshold)
  encoded = _encode(x, w, bias, threshold, bandwidth=bandwidth)
  mask, values = _dense(encoded)
  x, w, bias, threshold = (
      a.astype(np.float64) for a in (x, w, bias, threshold)
  )
  pre_acts = x @ w.T + bias
  limit = threshold - np.float32(bandwidth) / 2
  sums = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(w, axis=1)
  error = (d + 2) * _EPSILON * sums + 4 * _EPSILON * (np.abs(bias) + threshold)
  # XLA flushes numbers that are smaller to 0.
  error += 2.0**-126
  certain = np.abs(pre_acts - limit) > error
  assert certain.mean() > 0.5
  np.testing.assert_array_equal(
      mask[certain], (pre_acts > limit)[certain], case
  )
  assert (np.abs(values - pre_acts)[mask] <= error[mask]).all()
  assert not case.startswith('normal') or 0.01 < mask.mean() < 0.7


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['x', 'w', 'bias', 'threshold'])
def test_what_is_not_finite_is_among_the_pairs(name, value):
  arrays = _normal(np.random.default_rng(0), 40)
  arrays = dict(zip(('x', 'w', 'bias', 'threshold'), arrays, strict=True))
  arrays['threshold'][:] = 100
  arrays[name][5] = value
  mask, values = _dense(_encode(*arrays.values()))
  expected = np.zeros_like(mask)
  if name == 'x':
    expected[5] = True
  elif name == 'threshold':
    expected[:, 5] = value != np.inf
  else:
    expected[:, 5] = True
  np.testing.assert_array_equal(mask, expected)
  assert name == 'threshold' or not np.isfinite(values[mask]).any()


def test_a_value_has_the_same_bits_with_few_and_with_all_candidates():
  x, w, bias, threshold = _normal(np.random.default_rng(1), 515)
  few = _encode(x, w, bias, threshold + 0.1)
  every = _encode(x, w, bias, threshold - 100)
  assert few.candidates.max() < _WIDTH
  assert (every.candidates == _WIDTH).all()
  mask, values = _dense(few)
  full, others = _dense(every)
  assert full.all() and 0 < mask.mean() < 0.2
  np.testing.assert_array_equal(values[mask], others[mask])


def test_a_row_with_more_pairs_than_room_is_cut_and_counted():
  arrays = _normal(np.random.default_rng(2), 40)
  whole, cut = _encode(*arrays), _encode(*arrays, room=3)
  np.testing.assert_array_equal(cut.counts, whole.counts)
  assert (cut.counts > 3).any()
  np.testing.assert_array_equal(cut.latents, whole.latents[:, :3])
  np.testing.assert_array_equal(cut.values, whole.values[:, :3])


def test_integers_of_eight_bits_and_tiles_of_eight_rows_find_them_too():
  # Those of a kernel that few CPUs have, multiplied by a plain loop.
  environment = os.environ | {'JUMPRELU_INTEGER_KERNEL': 'plain'}
  command = [sys.executable, '-m', 'pytest', '-q', '-n0', __file__]
  done = subprocess.run(
      [*command, '-k', 'not eight_bits'],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stdout


def test_the_kernel_can_be_switched_off():
  code = 'from jumprelu.ops import native; print([native.encode_kernel()])'
  done = subprocess.run(
      [sys.executable, '-c', code],
      env=os.environ | {'JUMPRELU_INTEGER_KERNEL': 'none'},
      capture_output=True,
      text=True,
      check=True,
  )
  assert done.stdout == "['']\n"
