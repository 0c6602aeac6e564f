"""The benchmark: problems as they are asked for, records that hold water."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarking import problem, report

_ROOT = pathlib.Path(benchmark.__file__).parent.parent


@pytest.mark.parametrize('zipf', [False, True])
def test_a_problem_has_the_wanted_l0(zipf):
  shape = problem.SHAPES['XS']
  made = problem.make(shape, 20, zipf=zipf)
  active = (made['x'] @ made['W_enc'] > made['threshold']).mean(axis=(0, 1))
  np.testing.assert_allclose(active.sum(), 20, rtol=0.1)
  # Even: all alike. Zipf: the most frequent tenth fires half of the time or so.
  top = np.sort(active)[-51:].sum() / active.sum()
  assert (top > 0.4) == zipf
  np.testing.assert_allclose(
      np.linalg.norm(made['W_dec'], axis=1), 1, rtol=1e-5
  )
  np.testing.assert_allclose(np.square(made['x']).sum(-1).mean(), 1, rtol=0.05)


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp('benchmark')
  subprocess.run(
      [
          sys.executable,
          '-m',
          'experiments.benchmark',
          '--shapes=XS',
          '--l0=20',
          '--frequencies=zipf',
          '--peers=none',
          '--rounds=1',
          f'--json={folder / "found.json"}',
          f'--plot={folder / "found.png"}',
      ],
      cwd=_ROOT,
      env={k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'},
      check=True,
  )
  assert (folder / 'found.png').stat().st_size > 10_000
  return json.loads((folder / 'found.json').read_text('utf-8'))


def test_records_have_the_fields_that_others_read(records):
  assert {record['ours'] for record in records} >= {'dense', 'sparse'}
  for record in records:
    assert record['shape'] == 'XS' and record['zipf'] and record['l0'] == 20
    assert record['peer'] == 'ours-oracle'
    assert record['precision'] == 'float32'
    low, high = record['speed_ratio_low'], record['speed_ratio_high']
    assert 0 < low <= record['speed_ratio_median'] <= high
    for field in ('cpu_ratio', 'memory_ratio', 'ceiling_share'):
      assert record[field] > 0


def test_gradients_are_exact_at_the_benchmarks_problem(records):
  for record in records:
    assert 0 < record['gradient_error'] <= 1e-6, record


def test_a_ratio_is_of_both_turns_of_a_round():
  above = [{'wall': 1.0}, {'wall': 3.0}, {'wall': 6.0}, {'wall': 6.0}]
  below = [{'wall': 2.0}, {'wall': 2.0}, {'wall': 1.0}, {'wall': 2.0}]
  assert benchmark.ratios(above, below, 'wall') == [1.0, 4.0]


def test_the_table_has_a_line_an_implementation_and_a_pair(records):
  turn = {'wall': 1.0, 'cpu': 2.0, 'memory': 2**20, 'l0': 20.0}
  text = report.table(records, {'ours-dense': [turn, turn]})
  assert len(text.strip().splitlines()) == 3 + len(records)


@pytest.mark.parametrize(
    'flag', ['--shapes=Q', '--peers=nobody', '--paths=fast', '--l0=many']
)
def test_a_wrong_flag_is_one_line_and_code_2(flag):
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmark', flag],
      cwd=_ROOT,
      capture_output=True,
      text=True,
  )
  assert done.returncode == 2
  assert len(done.stderr.strip().splitlines()) == 1
  assert flag.partition('=')[2] in done.stderr
