"""Metrics of runs are read as rows, from lines of this version and older."""

import json
import pathlib
import shutil

import pytest

import jumprelu
from jumprelu import errors
from jumprelu.training import metrics_file
from tests import toy_run, toy_suite

RUN = pathlib.Path(__file__).parents[1] / 'fixtures' / 'format_1' / 'run'
PEAK = 1e-3
NAMES = [
    'resid_post-48-jumprelu-lambda_0.01-seed_0',
    'resid_post-48-jumprelu-lambda_0.04-seed_0',
]


def test_a_run_is_read_by_member_with_the_learning_rate_of_its_schedule(
    tmp_path,
):
  toy_run.run(tmp_path)
  rows = metrics_file.read(tmp_path)
  assert rows == jumprelu.read_metrics(tmp_path)
  mine = [row for row in rows if row['member'] == NAMES[1]]
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
  assert [coefficients[name] for name in NAMES] == [1e-2, 4e-2]


@pytest.fixture
def run(tmp_path):
  """A copy of the files of a run that the table is read from."""
  for name in ('config.json', 'suite.json', 'metrics.jsonl', 'STATUS.json'):
    shutil.copy(RUN / name, tmp_path / name)
  return tmp_path


def lines_of(run):
  text = (run / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def write_lines(run, lines):
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (run / 'metrics.jsonl').write_text(text)


def test_an_older_run_has_a_row_per_member_and_segment_with_its_numbers():
  rows = metrics_file.read(RUN, name='old')
  lines = lines_of(RUN)
  members = json.loads((RUN / 'suite.json').read_text())['members']
  assert len(rows) == len(lines) * len(members)
  for number, row in enumerate(rows):
    member = members[number // len(lines)]
    line = lines[number % len(lines)]
    for name, values in line['groups'][member['group']].items():
      assert row[name] == values[member['index']]
    for name in ('site', 'width', 'variant', 'sparsity_coefficient', 'seed'):
      assert row[name] == member[name]
    assert (row['run'], row['model'], row['layer']) == ('old', 'gemma2_nano', 1)
    assert row['step'] == line['step']
    assert row['tokens_trained'] == line['tokens_trained']
    assert row['learning_rate'] == PEAK * line['learning_rate']


def test_logged_factors_and_rates_both_become_rates(run):
  """A run that a newer version resumed has lines of both kinds."""
  old, new, *_ = lines_of(run)
  new |= {'learning_rate': 0.25 * PEAK, 'sparsity_factor': 0.5, 'members': {}}
  del new['sparsity']
  write_lines(run, [old | {'learning_rate': 0.125}, new])
  first, second, *_ = metrics_file.read(run)
  assert first['learning_rate'] == 0.125 * PEAK
  assert first['sparsity_factor'] == old['sparsity']
  assert second['learning_rate'] == 0.25 * PEAK
  assert second['sparsity_factor'] == 0.5


def test_a_limited_number_of_segments_includes_the_first_and_the_last(run):
  rows = metrics_file.read(run)
  limited = metrics_file.read(run, limit=4)
  assert [row['step'] for row in limited[:4]] == [2, 10, 18, 26]
  assert len(limited) == 4 * 6
  assert all(row in rows for row in limited)


def test_an_unfinished_last_line_is_left_out(run):
  count = len(metrics_file.read(run))
  with (run / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 99')
  assert len(metrics_file.read(run)) == count


def test_undefined_numbers_are_none(run):
  lines = lines_of(run)
  lines[0]['groups']['resid_post-16-jumprelu']['loss'] = [None]
  write_lines(run, lines)
  assert metrics_file.read(run)[0]['loss'] is None


@pytest.mark.parametrize('missing', ['metrics.jsonl', 'suite.json'])
def test_a_run_without_metrics_has_to_run_longer(run, missing):
  (run / missing).unlink()
  with pytest.raises(errors.MissingInputError, match='run longer'):
    metrics_file.read(run)


@pytest.mark.parametrize(
    'line, message',
    [
        ('[]', 'line 14: not a JSON object'),
        ('{"step": 3}', 'line 14: a field is missing'),
        ('{"step"', 'line 14: '),
        ('\udcff', 'not text'),
    ],
)
def test_a_damaged_line_is_named(run, line, message):
  with (run / 'metrics.jsonl').open('a', errors='surrogateescape') as file:
    file.write(line + '\n')
  with pytest.raises(errors.DataError, match=message):
    metrics_file.read(run)


def test_texts_instead_of_numbers_are_refused(run):
  lines = lines_of(run)
  lines[2]['groups']['transcoder-16-topk']['l0'] = ['many']
  write_lines(run, lines)
  with pytest.raises(errors.DataError, match='line 3: .*l0 is not a number'):
    metrics_file.read(run)


def test_a_damaged_suite_is_named(run):
  (run / 'suite.json').write_text('{"layer": 1, "members": [], "scales": {}}')
  with pytest.raises(errors.DataError, match=r"suite.json: .*'model'"):
    metrics_file.read(run)


def test_other_folders_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match='a release, not a run'):
    metrics_file.read(RUN.parent / 'release')
  with pytest.raises(errors.MissingInputError, match='no run directory'):
    metrics_file.read(tmp_path)


@pytest.mark.parametrize('value', ['a', 10**400, float('inf')])
def test_a_number_that_is_none_is_named(run, value):
  lines = lines_of(run)
  write_lines(run, [lines[0] | {'step': value}])
  with pytest.raises(errors.DataError, match='metrics.jsonl: line 1'):
    metrics_file.read(run)
  write_lines(run, lines)
  suite = json.loads((run / 'suite.json').read_text())
  for name in ('learning_rate', 'sparsity_coefficient'):
    members = [member | {name: value} for member in suite['members']]
    text = json.dumps(suite | {'members': members})
    (run / 'suite.json').write_text(text)
    if value != float('inf'):
      with pytest.raises(errors.DataError, match='suite.json: a field'):
        metrics_file.read(run)
