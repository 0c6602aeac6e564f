"""Readers of metrics.jsonl, with lines of this version and of older ones."""

import json
import pathlib
import shutil

import pytest

import jumprelu
from jumprelu import errors
from jumprelu.training import metrics_file
from tests import toy_run, toy_suite

_OLD = pathlib.Path(__file__).parent.parent / 'fixtures' / 'format_1' / 'run'
_NAMES = [
    'resid_post-48-jumprelu-lambda_0.01-seed_0',
    'resid_post-48-jumprelu-lambda_0.04-seed_0',
]


def test_a_run_is_read_by_member_with_the_learning_rate_of_its_schedule(
    tmp_path,
):
  toy_run.run(tmp_path)
  rows = metrics_file.by_member(tmp_path)
  assert rows == jumprelu.read_metrics(tmp_path)
  mine = [row for row in rows if row['member'] == _NAMES[1]]
  assert [row['step'] for row in mine] == [3, 4, 7, 8, 11, 12, 13]
  assert mine[0].keys() >= {'l0', 'fvu', 'dead_share', 'loss', 'group'}
  rates = [row['learning_rate'] for row in mine]
  assert 0 < max(rates) <= toy_suite.SMALL['optim.learning_rate'] * (1 + 1e-6)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  last = json.loads(lines[-1])['groups']['resid_post-48-jumprelu']
  assert mine[-1]['l0'] == last['l0'][1]


def test_suite_json_describes_the_members_that_metrics_name(tmp_path):
  toy_run.run(tmp_path, stop=(3,))
  record = json.loads((tmp_path / 'suite.json').read_text())
  coefficients = {
      member['name']: member['sparsity_coefficient']
      for member in record['members']
  }
  assert [coefficients[name] for name in _NAMES] == [1e-2, 4e-2]


def test_lines_of_older_versions_are_converted(tmp_path):
  old = [json.loads(line) for line in (_OLD / 'metrics.jsonl').open()]
  assert all('sparsity' in line and 'members' not in line for line in old)
  config = json.loads((_OLD / 'config.json').read_text())
  lines = metrics_file.read(_OLD)
  assert len(lines) == len(old)
  for line, before in zip(lines, old, strict=True):
    rate = before['learning_rate'] * config['optim']['learning_rate']
    assert line['learning_rate'] == rate
    assert line['sparsity_factor'] == before['sparsity']
    assert line['groups'] == before['groups']
    for group, metrics in line['groups'].items():
      assert len(line['members'][group]) == len(metrics['l0'])
  assert len(metrics_file.by_member(_OLD)) == sum(
      len(names) for line in lines for names in line['members'].values()
  )


def test_an_unfinished_last_line_is_left_out(tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(_OLD, run)
  with (run / 'metrics.jsonl').open('a') as f:
    f.write('{"step": 99, "tok')
  assert metrics_file.read(run) == metrics_file.read(_OLD)


def test_a_run_without_metrics_is_named(tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(_OLD, run)
  (run / 'metrics.jsonl').unlink()
  with pytest.raises(errors.MissingInputError, match='no metrics yet'):
    metrics_file.read(run)
