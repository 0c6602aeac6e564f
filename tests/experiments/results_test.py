"""Suites are trained once and read again for as long as they are the same."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments import results, suites
from tests.experiments import small_results as small

_ROOT = pathlib.Path(results.__file__).parent.parent


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


@pytest.mark.slow
def test_a_figure_is_trained_drawn_and_drawn_again(tmp_path):
  command = [sys.executable, '-m', 'experiments.scope_width', '--quick']
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
