"""The benchmark: problems as they are asked for, records that hold water."""

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
  # Even: all alike. Zipf: the most frequent tenth fires half of the time or so.
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
  wanted = [np.quantile(pre_acts[:, i], 1 - s) for i, s in enumerate(shares)]
  # No lower than is positive for certain.
  wanted = np.maximum(wanted, 2 * problem.BANDWIDTH)
  np.testing.assert_allclose(made['threshold'], wanted, rtol=1e-5)


def test_what_is_saved_is_read(tmp_path):
  shape = problem.SHAPES['XS']
  problem.save(tmp_path, shape, 20, zipf=False)
  found = problem.load(str(tmp_path))
  made = problem.make(shape, 20, zipf=False)
  assert found.keys() == made.keys() | {'l0', 'steps'}
  assert int(found['l0']) == 20 and int(found['steps']) == shape.steps
  for name, array in made.items():
    np.testing.assert_array_equal(found[name], array)


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
          f'--json={folder / "found.json"}',
          *arguments,
      ],
      cwd=_ROOT,
      env={k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'},
      capture_output=True,
      text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads((folder / 'found.json').read_text('utf-8')), done


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp('benchmark')
  plot = folder / 'found.png'
  found, _ = _run(folder, '--peers=none', f'--plot={plot}')
  assert plot.stat().st_size > 10_000
  return found


def test_records_have_the_fields_that_others_read(records):
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


def test_gradients_are_exact_at_the_benchmarks_problem(records):
  for record in records:
    assert 0 < record['gradient_error'] <= 1e-6, record


def test_alone_and_rounded_and_without_what_fails(tmp_path):
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
  # Products of rounded inputs: the flag has reached the process.
  assert 1e-4 < record['gradient_error'] < 0.1
  assert 'without saelens: saelens ended with code 3' in done.stderr
  assert 'no dictionary_learning in bfloat16' in done.stderr


@pytest.mark.parametrize('alone', [False, True])
def test_turns_go_there_and_back_or_one_after_another(
    monkeypatch, capsys, alone
):
  heard = []
  names = ('ours-dense', 'saelens')

  @contextlib.contextmanager
  def all_of(pythons, job):
    del job
    yield {name: _Fake(name, heard) for name in pythons}

  monkeypatch.setattr(timing.resident, 'all_of', all_of)
  plan = timing.Plan(rounds=1, steps=4, alone=alone)
  found = timing.measure(dict.fromkeys(names, ''), None, plan)
  assert {name: len(turns) for name, turns in found.turns.items()} == {
      'ours-dense': 2,
      'saelens': 2,
  }
  assert found.gradient_errors == {'ours-dense': 0.5}
  # Told at once, whatever becomes of the rest.
  assert 'ours-dense: 1.0000 s a turn, 1 MiB' in capsys.readouterr().err
  turns = [name for name, what in heard if what == 4]
  if alone:
    assert turns == ['ours-dense'] * 2 + ['saelens'] * 2
    # The next one finds the memory free.
    assert heard.index(('ours-dense', 'close')) < heard.index(
        ('saelens', 'prepare')
    )
  else:
    assert turns == ['ours-dense', 'saelens', 'saelens', 'ours-dense']


class _Fake:
  """A resident process that writes down what it is asked."""

  def __init__(self, name, heard):
    self._name, self._heard = name, heard

  def prepare(self):
    self._heard.append((self._name, 'prepare'))

  def turn(self, steps):
    self._heard.append((self._name, steps))
    return {'wall': 1.0, 'memory': 2**20}

  def gradient_error(self):
    return 0.5

  def close(self):
    self._heard.append((self._name, 'close'))


def test_a_ratio_is_of_both_turns_of_a_round():
  above = [{'wall': 1.0}, {'wall': 3.0}, {'wall': 6.0}, {'wall': 6.0}]
  below = [{'wall': 2.0}, {'wall': 2.0}, {'wall': 1.0}, {'wall': 2.0}]
  assert benchmark.ratios(above, below, 'wall') == [1.0, 4.0]


def test_the_table_has_a_line_an_implementation_and_a_pair(records):
  turn = {'wall': 1.0, 'cpu': 2.0, 'memory': 2**20, 'imports': 9, 'l0': 2.0}
  text = report.table('XS', records, {'ours-dense': [turn, turn]})
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
def test_a_wrong_flag_is_one_line_and_code_2(flag):
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmarking.benchmark', flag],
      cwd=_ROOT,
      capture_output=True,
      text=True,
  )
  assert done.returncode == 2
  assert len(done.stderr.strip().splitlines()) == 1
  assert flag.partition('=')[2] in done.stderr
