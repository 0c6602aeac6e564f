"""The benchmark: problems, records, the order of trials, and the table."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmarking import benchmark, problem, report, timing

_ROOT = pathlib.Path(benchmark.__file__).parents[2]


@pytest.mark.parametrize('zipf', [False, True])
def test_a_problem_has_the_wanted_l0(zipf):
  shape = problem.SHAPES['XS']
  made = problem.make(shape, 20, zipf=zipf)
  active = (made['x'] @ made['W_dec'].T > made['threshold']).mean(axis=(0, 1))
  np.testing.assert_allclose(active.sum(), 20, rtol=0.1)
  # With Zipf the most frequent tenth of latents has about half of all activity.
  top = np.sort(active)[-51:].sum() / active.sum()
  assert (top > 0.4) == zipf
  np.testing.assert_allclose(
      np.linalg.norm(made['W_dec'], axis=1), 1, rtol=1e-5
  )
  np.testing.assert_allclose(np.square(made['x']).sum(-1).mean(), 1, rtol=0.05)


def test_thresholds_are_quantiles_of_each_latents_pre_activations():
  shape = problem.Shape(d_model=8, width=5000, batch=16, steps=1)
  made = problem.make(shape, 500, zipf=True)
  pre_acts = made['x'].reshape(-1, 8) @ made['W_dec'].T
  shares = problem.frequencies(5000, 500, zipf=True)
  expected = [np.quantile(pre_acts[:, i], 1 - s) for i, s in enumerate(shares)]
  # Thresholds are at least twice the bandwidth, so that they are positive.
  expected = np.maximum(expected, 2 * problem.BANDWIDTH)
  np.testing.assert_allclose(made['threshold'], expected, rtol=1e-5)


def test_saved_arrays_are_loaded(tmp_path):
  shape = problem.SHAPES['XS']
  problem.save(tmp_path, shape, 20, zipf=False)
  loaded = problem.load(str(tmp_path))
  made = problem.make(shape, 20, zipf=False)
  assert loaded.keys() == made.keys() | {'l0', 'steps'}
  assert int(loaded['l0']) == 20 and int(loaded['steps']) == shape.steps
  for name, array in made.items():
    np.testing.assert_array_equal(loaded[name], array)


def _run(folder, *arguments):
  done = subprocess.run(
      [
          sys.executable,
          '-m',
          'experiments.benchmarking.benchmark',
          '--shapes=XS',
          '--l0=20',
          '--frequencies=zipf',
          '--rounds=1',
          f'--json={folder / "records.json"}',
          *arguments,
      ],
      cwd=_ROOT,
      env={k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'},
      capture_output=True,
      text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads((folder / 'records.json').read_text('utf-8')), done


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp('benchmark')
  plot = folder / 'plot.png'
  records, _ = _run(folder, '--peers=none', f'--plot={plot}')
  assert plot.stat().st_size > 10_000
  return records


@pytest.mark.slow
def test_records_have_the_fields_of_their_readers(records):
  assert {record['ours'] for record in records} >= {'dense', 'sparse'}
  for record in records:
    assert record['shape'] == 'XS' and record['zipf'] and record['l0'] == 20
    assert record['peer'] == 'ours-oracle'
    assert record['precision'] == 'float32' and record['device'] == 'cpu'
    assert record['seconds'] > 0 and record['peer_seconds'] > 0
    low, high = record['speed_ratio_low'], record['speed_ratio_high']
    assert 0 < low <= record['speed_ratio_median'] <= high
    for field in ('cpu_ratio', 'memory_ratio', 'ceiling_share'):
      assert record[field] > 0


@pytest.mark.slow
def test_gradients_are_exact_at_the_benchmarks_problem(records):
  for record in records:
    assert 0 < record['gradient_error'] <= 1e-6, record


@pytest.mark.slow
def test_failing_peers_are_left_out_alone_and_in_bfloat16(tmp_path):
  broken = tmp_path / 'python'
  broken.write_text('#!/bin/sh\nexit 3\n', 'utf-8')
  broken.chmod(0o755)
  records, done = _run(
      tmp_path,
      '--alone',
      '--skip_failing',
      '--backends=oracle,dense',
      '--precision=bfloat16',
      '--peers=saelens,dictionary_learning',
      f'--peers_python={broken}',
  )
  (record,) = records
  assert (record['ours'], record['peer']) == ('dense', 'ours-oracle')
  assert record['precision'] == 'bfloat16'
  # The error is that of rounded inputs, so the process has received the flag.
  assert 1e-4 < record['gradient_error'] < 0.1
  assert 'saelens is left out: saelens ended with code 3' in done.stderr
  assert 'dictionary_learning is left out in bfloat16' in done.stderr


@pytest.mark.parametrize('alone', [False, True])
def test_trials_alternate_in_both_directions_or_follow_one_another(
    monkeypatch, capsys, alone
):
  calls = []
  names = ('ours-dense', 'saelens')

  @contextlib.contextmanager
  def all_of(pythons, job):
    del job
    yield {name: _Fake(name, calls) for name in pythons}

  monkeypatch.setattr(timing.resident, 'all_of', all_of)
  plan = timing.Plan(rounds=1, steps=4, alone=alone)
  results = timing.measure(dict.fromkeys(names, ''), None, plan)
  assert {name: len(trials) for name, trials in results.trials.items()} == {
      'ours-dense': 2,
      'saelens': 2,
  }
  assert results.gradient_errors == {'ours-dense': 0.5}
  # Printed at once, because a later implementation may fail.
  assert 'ours-dense: 1.0000 s per trial, 1 MiB' in capsys.readouterr().err
  trials = [name for name, call in calls if call == 4]
  if alone:
    assert trials == ['ours-dense'] * 2 + ['saelens'] * 2
    # The memory is free before the next implementation starts.
    assert calls.index(('ours-dense', 'close')) < calls.index(
        ('saelens', 'prepare')
    )
  else:
    assert trials == ['ours-dense', 'saelens', 'saelens', 'ours-dense']


class _Fake:
  """A resident process that records its calls."""

  def __init__(self, name, calls):
    self._name, self._calls = name, calls

  def prepare(self):
    self._calls.append((self._name, 'prepare'))

  def trial(self, steps):
    self._calls.append((self._name, steps))
    return {'wall': 1.0, 'memory': 2**20}

  def gradient_error(self):
    return 0.5

  def close(self):
    self._calls.append((self._name, 'close'))


def test_a_ratio_is_of_both_trials_of_a_round():
  above = [{'wall': 1.0}, {'wall': 3.0}, {'wall': 6.0}, {'wall': 6.0}]
  below = [{'wall': 2.0}, {'wall': 2.0}, {'wall': 1.0}, {'wall': 2.0}]
  assert benchmark.ratios(above, below, 'wall') == [1.0, 4.0]


@pytest.mark.slow
def test_the_table_has_one_line_per_implementation_and_per_record(records):
  trial = {'wall': 1.0, 'cpu': 2.0, 'memory': 2**20, 'imports': 9, 'l0': 2.0}
  text = report.table('XS', records, {'ours-dense': [trial, trial]})
  assert len(text.strip().splitlines()) == 3 + len(records)


@pytest.mark.parametrize(
    'flag',
    [
        '--shapes=Q',
        '--peers=nobody',
        '--backends=fast',
        '--l0=many',
        '--device=tpu',
        '--precision=float16',
    ],
)
def test_a_wrong_flag_is_an_error_of_one_line_and_code_2(flag):
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmarking.benchmark', flag],
      cwd=_ROOT,
      capture_output=True,
      text=True,
  )
  assert done.returncode == 2
  assert len(done.stderr.strip().splitlines()) == 1
  assert flag.partition('=')[2] in done.stderr
