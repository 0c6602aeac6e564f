"""Suites are trained once and read again until one of their inputs changes."""

import dataclasses
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from experiments.nano import made
from experiments.suites import results, suites
from jumprelu import evals, lm
from jumprelu.files import dotted
from jumprelu.ops import products
from jumprelu.release import publish
from jumprelu.training import config as config_lib
from tests.experiments import small_results as small

_ROOT = pathlib.Path(results.__file__).parents[2]


@pytest.fixture
def trained(monkeypatch):
  """Replaces training and evaluation; returns the names of trained suites."""
  names = []
  monkeypatch.setattr(
      results, 'train_suite', lambda suite, run, **_: names.append(suite.name)
  )
  monkeypatch.setattr(results, '_measure', lambda need, run: small.make(need))
  return names


def test_stored_results_are_read_again(trained, tmp_path):
  suite = suites.ladder(small.SCALE)
  assert not results.is_stored(suite, tmp_path)
  results.obtain(suite, tmp_path)
  assert results.is_stored(suite, tmp_path)
  again, expected = results.obtain(suite, tmp_path), small.make(suite)
  assert trained == ['ladder']
  assert (again.rows, again.tables) == (expected.rows, expected.tables)
  for stored, exact in zip(
      again.firing_frequency, expected.firing_frequency, strict=True
  ):
    np.testing.assert_array_equal(stored, exact.astype(np.float32))


def test_results_are_made_again_for_another_config_or_measure(
    trained, tmp_path
):
  suite = suites.ladder(small.SCALE)
  results.obtain(suite, tmp_path)
  config = {**suite.config, 'tokens': 2 * suite.config['tokens']}
  for other in (
      dataclasses.replace(suite, config=config),
      dataclasses.replace(suite, measures=('histogram',)),
  ):
    assert not results.is_stored(other, tmp_path)
    results.obtain(other, tmp_path)
  assert trained == ['ladder'] * 3


def _forget_digests():
  """Clears the cached digests of files, as in a new process."""
  cached = getattr(results, '_files_digest', None)
  if cached is not None:
    cached.cache_clear()


@pytest.fixture
def model(tmp_path, monkeypatch):
  """Replaces every language model with one folder, which is returned."""
  folder = tmp_path / 'model'
  folder.mkdir()
  (folder / 'weights').write_text('some')
  monkeypatch.setattr(
      lm, 'find', lambda name: types.SimpleNamespace(path=folder)
  )
  _forget_digests()
  yield folder
  _forget_digests()


def _new_metrics(patch, model):
  del model
  patch.setattr(evals, 'VERSION', 99, raising=False)


def _new_platform(patch, model):
  del model
  patch.setattr(jax, 'default_backend', lambda: 'gpu')


def _new_dtype(patch, model):
  del model
  patch.setattr(config_lib, 'dtype_on', lambda config, platform: 'bfloat16')


def _new_precision(patch, model):
  del model
  patch.setattr(
      products,
      'precision',
      lambda name: jax.default_matmul_precision('bfloat16'),
  )


def _new_default(patch, model):
  del model

  def other(config):
    optim = dataclasses.replace(config.optim, eps=0.5)
    return dataclasses.replace(config, optim=optim)

  resolve = made.resolve
  patch.setattr(made, 'resolve', lambda *args: other(resolve(*args)))
  # As in a version of the package with another default.
  defaults = dotted.leaves(other(config_lib.TrainConfig()))
  original = dotted.leaves
  patch.setattr(
      dotted,
      'leaves',
      lambda config, *path: (
          defaults
          if config == config_lib.TrainConfig()
          else original(config, *path)
      ),
  )


def _new_weights(patch, model):
  del patch
  (model / 'weights').write_text('same')
  _forget_digests()


@pytest.mark.parametrize(
    'change',
    [
        _new_metrics,
        _new_platform,
        _new_dtype,
        _new_precision,
        _new_default,
        _new_weights,
    ],
)
def test_results_are_made_again_when_an_input_changes(
    trained, tmp_path, monkeypatch, model, change
):
  needs = (
      suites.ladder(small.SCALE),
      suites.Reading('coarse', suites.ladder(small.SCALE), {'eval.tokens': 64}),
  )
  for need in needs:
    results.obtain(need, tmp_path)
    assert results.is_stored(need, tmp_path)
  with monkeypatch.context() as patch:
    change(patch, model)
    for need in needs:
      assert not results.is_stored(need, tmp_path)
      results.obtain(need, tmp_path)
      assert results.is_stored(need, tmp_path)
  assert trained == ['ladder'] * 4


def test_results_depend_on_the_weights_of_a_made_model(
    trained, tmp_path, model
):
  del model
  tuned = made.Made('model', 'tuned', 10, stands_for='gemma2_nano')
  reading = suites.Reading(
      'tuned', suites.ladder(small.SCALE), {'model': tuned}
  )
  folder = tmp_path / 'made' / 'model_10' / 'tuned'
  folder.mkdir(parents=True)
  (folder / 'weights').write_text('tuned')
  results.obtain(reading, tmp_path)
  assert results.is_stored(reading, tmp_path)
  (folder / 'weights').write_text('tuned otherwise')
  _forget_digests()
  assert not results.is_stored(reading, tmp_path)
  assert trained == ['ladder']


def test_a_reading_is_stored_beside_the_results_of_its_suite(trained, tmp_path):
  suite = suites.ladder(small.SCALE)
  reading = suites.Reading('coarse', suite, {'lm_dtype': 'bfloat16'})
  results.obtain(suite, tmp_path)
  evaluation = results.obtain(reading, tmp_path)
  assert {row['lm_dtype'] for row in evaluation.rows} == {'bfloat16'}
  assert results.is_stored(suite, tmp_path)
  assert results.is_stored(reading, tmp_path)


@pytest.mark.parametrize(
    'changes, loaded',
    [
        ({}, []),
        ({'eval.tokens': 4096}, []),
        ({'lm_dtype': 'bfloat16'}, [('gemma2_nano', 'bfloat16')]),
        ({'model': 'gemma2_2b'}, [('gemma2_2b', 'float32')]),
    ],
)
def test_a_reading_loads_its_language_model_in_its_dtype(
    monkeypatch, changes, loaded
):
  suite = suites.ladder(small.SCALE)
  model = types.SimpleNamespace(
      tokenizer_path='', config=types.SimpleNamespace(vocab=8)
  )
  calls = []

  def load(name, *, dtype, mesh):
    calls.append((name, np.dtype(dtype).name))
    return model

  monkeypatch.setattr(results.lm, 'load', load)
  monkeypatch.setattr(results.data, 'Tokenizer', lambda *_, **__: None)
  monkeypatch.setattr(results.data, 'prepare', lambda *_: None)
  run = publish.Run(
      pathlib.Path(), made.resolve(suite.config), [], [], model, None, None
  )
  reading = suites.Reading('otherwise', suite, changes)
  changed = results._read_otherwise(run, reading, pathlib.Path())
  assert calls == loaded
  assert changed.config == made.resolve({**suite.config, **changes})


@pytest.mark.slow
def test_a_figure_is_trained_once_and_drawn_repeatedly(tmp_path):
  command = [sys.executable, '-m', 'experiments.figures.scope_width', '--quick']
  command += [f'--work={tmp_path}']

  def run(*more):
    return subprocess.run(
        [*command, *more], cwd=_ROOT, capture_output=True, text=True, check=True
    )

  assert 'suite 1 of 1: ladder' in run().stderr
  out = tmp_path / 'quick' / 'figures'
  picture = out / 'scope_width.png'
  first = picture.read_bytes()
  picture.unlink()
  assert 'suite' not in run().stderr, 'trained a stored suite again'
  picture.unlink()
  run('--redraw', f'--out={out}')
  assert picture.read_bytes() == first
