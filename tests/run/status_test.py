"""`jumprelu status`: the state of runs, read from their directories."""

import json
import os
import time

import pytest

from jumprelu import errors
from jumprelu.files import locks
from jumprelu.run import main, status

NOW = 1_800_000_000.0


def _stamp(seconds):
  return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds))


def _make(path, state=None, *, age=60, **fields):
  path.mkdir(parents=True)
  (path / 'config.json').write_text('{}')
  os.utime(path / 'config.json', (NOW - age, NOW - age))
  if state:
    record = {'state': state, **fields, 'updated': _stamp(NOW - age)}
    (path / 'STATUS.json').write_text(json.dumps(record))
  return path


def _read(path, stale_after=3600.0):
  (directory,) = status.find([str(path)])
  return status.read(directory, now=NOW, stale_after=stale_after)


@pytest.mark.parametrize(
    'state, age, stale, is_bad',
    [
        ('running', 60, False, False),
        ('running', 3601, True, True),
        # Clocks that differ a little, and one that was set back.
        ('running', -200, False, False),
        ('running', -86_400, True, True),
        ('done', -86_400, False, False),
        ('preempted', 60, False, False),
        ('preempted', 3601, True, True),
        ('done', 10**6, False, False),
        ('failed', 60, False, True),
        (None, 60, False, False),
        (None, 3601, True, True),
    ],
)
def test_failed_and_stale_runs_need_attention(
    tmp_path, state, age, stale, is_bad
):
  run = _read(_make(tmp_path / 'run', state, age=age))
  assert (run.stale, run.is_bad) == (stale, is_bad)
  assert run.state == (state or 'starting')
  assert run.age == age


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{',
        '[]',
        '{}',
        '[' * 100_000,
        '{"state": "done", "updated": "today"}',
        '{"state": "done", "updated": "2026-01-01T00:00:00Z", "step": 1e999}',
        '{"state": "done", "updated": "2026-01-01T00:00:00Z", "step": 1'
        + '0' * 400
        + ', "total_steps": 3}',
        '{"state": "done", "updated": "2026-01-01T00:00:00Z", "seconds": 1,'
        ' "tokens_trained": 1' + '0' * 400 + '}',
    ],
)
def test_a_run_with_a_damaged_status_needs_attention(tmp_path, text):
  path = _make(tmp_path / 'run', 'done')
  (path / 'STATUS.json').write_text(text)
  run = _read(path)
  assert run.state == 'unreadable' and run.is_bad


def test_an_update_in_the_future_is_shown_as_such(tmp_path):
  table = status.table([_read(_make(tmp_path / 'run', 'running', age=-9999))])
  assert 'running (stale)' in table and 'in the future' in table


def test_a_folder_of_runs_is_expanded_to_its_runs(tmp_path):
  for layer in (1, 0):
    _make(tmp_path / 'scope' / f'layer_{layer:02d}', 'done')
  (tmp_path / 'scope' / 'notes').mkdir()
  single = _make(tmp_path / 'single', 'done')
  paths = status.find([str(tmp_path / 'scope'), str(single)])
  assert [path.name for path in paths] == ['layer_00', 'layer_01', 'single']


def test_runs_deeper_in_a_folder_are_shown(tmp_path):
  inner = [_make(tmp_path / name, 'done') for name in ('a/b/run', 'c', 'z/d')]
  # Folders that hold no runs of their own.
  _make(tmp_path / '.hidden/run', 'done')
  _make(inner[0] / 'copy', 'done')
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model/config.json').write_text('{}')
  release = _make(tmp_path / 'release/inner', 'done').parent
  (release / 'suite.json').write_text('{"members": [], "files": []}')
  assert list(map(str, status.find([str(tmp_path)]))) == list(map(str, inner))


def test_folders_deeper_than_four_levels_are_not_searched(tmp_path):
  _make(tmp_path / '1/2/3/run', 'done')
  _make(tmp_path / '1/2/3/4/run', 'done')
  assert [path.name for path in status.find([str(tmp_path)])] == ['run']


def test_a_run_that_no_process_trains_has_never_started(tmp_path, capsys):
  path = _make(tmp_path / 'run')
  with locks.hold(path / 'run.lock', where='test', on_busy=lambda: None):
    run = _read(path)
    assert (run.state, run.is_bad) == ('starting', False)
  run = _read(path)
  assert (run.state, run.is_bad) == ('never started', True)
  assert 'run its command again' in status.table([run])
  assert main.main(['status', str(tmp_path)]) == 1
  assert 'never started' in capsys.readouterr().out


@pytest.mark.parametrize('host', ['another', ''])
def test_a_run_on_another_computer_may_still_start(tmp_path, host):
  path = _make(tmp_path / 'run')
  (path / 'run.lock').write_text(host)
  run = _read(path)
  assert (run.state, run.is_bad) == ('starting', False)


def test_a_folder_without_runs_is_missing_input(tmp_path):
  for path in (tmp_path, tmp_path / 'none'):
    with pytest.raises(
        errors.MissingInputError, match='neither a run directory'
    ):
      status.find([str(path)])


def test_the_table_has_share_speed_and_error_messages(tmp_path):
  runs = [
      _make(
          tmp_path / 'a',
          'running',
          step=250,
          total_steps=1000,
          tokens_trained=120_000,
          seconds=10.0,
          age=120,
      ),
      _make(tmp_path / 'b', 'failed', error='no\n more', age=7200),
      _make(tmp_path / 'c', age=86_400),
  ]
  lines = status.table([_read(path) for path in runs]).splitlines()
  assert lines[0].split() == [
      *('run', 'state', 'step', 'of', 'share', 'tokens/s', 'updated')
  ]
  assert lines[1].split() == [
      *(str(runs[0]), 'running', '250', '1000', '25.0%', '12,000'),
      *('2', 'min', 'ago'),
  ]
  assert lines[2].split()[1:] == ['failed', '0', '-', '-', '-', '2', 'h', 'ago']
  assert lines[3].split()[1:3] == ['starting', '(stale)']
  assert lines[4] == f'{runs[1]}: no more'


def test_the_command_exits_1_if_a_run_needs_attention(tmp_path, capsys):
  for name in ('a', 'b'):
    path = _make(tmp_path / name, 'done')
  assert main.main(['status', str(tmp_path / 'a'), str(path)]) == 0
  assert capsys.readouterr().out.count('done') == 2
  _make(tmp_path / 'c', 'failed')
  assert main.main(['status', str(tmp_path)]) == 1
  assert main.main(['status', f'--runs={tmp_path}/a,{tmp_path}/b']) == 0


def test_the_flag_stale_minutes_sets_the_limit(tmp_path):
  path = _make(tmp_path / 'a', 'running')
  record = {'state': 'running', 'updated': _stamp(time.time() - 300)}
  (path / 'STATUS.json').write_text(json.dumps(record))
  assert main.main(['status', str(path)]) == 0
  assert main.main(['status', str(path), '--stale_minutes=4']) == 1


def test_no_directory_is_a_bad_flag(tmp_path, capsys):
  assert main.main(['status']) == 2
  assert 'no run directory: use jumprelu status' in capsys.readouterr().err
  assert main.main(['status', str(tmp_path)]) == 66


@pytest.mark.parametrize(
    'fields',
    [{'step': 10**400}, {'step': float('inf')}, {'total_steps': -1}],
)
def test_a_status_with_impossible_steps_is_unreadable(tmp_path, fields):
  run = _read(_make(tmp_path / 'run', 'running', **fields))
  assert run.state == 'unreadable' and run.is_bad
  status.table([run])


def test_a_deeply_nested_status_is_unreadable(tmp_path):
  path = _make(tmp_path / 'run', 'running')
  (path / 'STATUS.json').write_text('[' * 10**5)
  assert _read(path).state == 'unreadable'
