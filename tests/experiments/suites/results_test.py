"""Suites are trained once and read again for as long as they are the same."""

import dataclasses
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from experiments.nano import made
from experiments.suites import results, suites
from jumprelu.release import publish
from tests.experiments import small_results as small

_ROOT = pathlib.Path(results.__file__).parents[2]


@pytest.fixture
def trained(monkeypatch):
  """Stands in for training and evaluation; the names of what was trained."""
  names = []
  monkeypatch.setattr(
      results, 'train_suite', lambda suite, run, **_: names.append(suite.name)
  )
  monkeypatch.setattr(results, '_measure', lambda want, run: small.make(want))
  return names


def test_what_is_stored_is_read_again(trained, tmp_path):
  suite = suites.ladder(small.SCALE)
  assert not results.is_stored(suite, tmp_path)
  results.obtain(suite, tmp_path)
  assert results.is_stored(suite, tmp_path)
  again, made = results.obtain(suite, tmp_path), small.make(suite)
  assert trained == ['ladder']
  assert (again.rows, again.tables) == (made.rows, made.tables)
  for stored, exact in zip(
      again.firing_frequency, made.firing_frequency, strict=True
  ):
    np.testing.assert_array_equal(stored, exact.astype(np.float32))


def test_another_config_or_measure_is_made_again(trained, tmp_path):
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


def test_a_reading_lies_beside_what_it_reads(trained, tmp_path):
  suite = suites.ladder(small.SCALE)
  reading = suites.Reading('coarse', suite, {'lm_dtype': 'bfloat16'})
  results.obtain(suite, tmp_path)
  found = results.obtain(reading, tmp_path)
  assert {row['lm_dtype'] for row in found.rows} == {'bfloat16'}
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
def test_a_language_model_is_read_as_the_reading_wants_it(
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
  found = results._read_otherwise(run, reading, pathlib.Path())
  assert calls == loaded
  assert found.config == made.resolve({**suite.config, **changes})


@pytest.mark.slow
def test_a_figure_is_trained_drawn_and_drawn_again(tmp_path):
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
  assert 'suite' not in run().stderr, 'trained what was there'
  picture.unlink()
  run('--redraw', f'--out={out}')
  assert picture.read_bytes() == first
