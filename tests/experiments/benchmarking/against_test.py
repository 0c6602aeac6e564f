"""The comparison of two checkouts: ratios per round, and their interval."""

import pathlib
import sys

import numpy as np
import pytest

from experiments.benchmarking import against, problem, resident
from jumprelu.run import main

_ROOT = pathlib.Path(against.__file__).parents[2]


def test_the_interval_covers_the_median_as_often_as_it_claims():
  rng = np.random.default_rng(0)
  covered = 0
  for _ in range(2000):
    low, high = against.interval(rng.exponential(size=20).tolist())
    covered += low <= np.log(2) <= high
  # The 6th of 20 values from either end covers it with 95.9 %, by the binomial
  # distribution.
  assert 0.945 < covered / 2000 < 0.975


def test_the_interval_of_20_values_is_their_6th_from_either_end():
  assert against.interval(range(20, 0, -1)) == (6, 15)


def test_too_few_values_have_no_interval():
  with pytest.raises(ValueError, match='too few'):
    against.interval([1.0] * 5)


@pytest.mark.slow
def test_a_checkout_is_as_fast_as_itself(tmp_path):
  problem.save(tmp_path, problem.SHAPES['XS'], 20, zipf=False)
  ratios = against.measure(
      'ours-dense',
      resident.Job(tmp_path, 'cpu', 'float32'),
      other=(sys.executable, _ROOT),
      rounds=6,
      steps=8,
  )
  assert len(ratios) == 6 and 0.2 < np.median(ratios) < 5


def test_an_interpreter_that_cannot_be_run_is_named_with_its_flag(capsys):
  argv = [f'--root={_ROOT}', '--python=no/such', '--backends=dense']
  name = 'python -m experiments.benchmarking.against'
  assert main.run_command(against, name, [*argv, '--shape=XS']) == 2
  assert '--python=no/such: cannot be run' in capsys.readouterr().err


def test_a_folder_without_the_package_is_refused(tmp_path, capsys):
  argv = [f'--root={tmp_path}']
  name = 'python -m experiments.benchmarking.against'
  assert main.run_command(against, name, argv) == 2
  assert 'not a checkout' in capsys.readouterr().err
