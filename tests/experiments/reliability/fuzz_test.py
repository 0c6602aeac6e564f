"""Results of fuzzing add up; a worker that dies or hangs is started again."""

import itertools
import json
import os
import time

import pytest

from experiments.reliability import fuzz, supervisor
from jumprelu import errors


def _serve(connection, current):
  """A worker with a crash at number 3 and an endless case at number 6."""
  while task := connection.recv():
    _, _, numbers, _ = task
    for number in numbers:
      current[0] = number
      current[1] += 1
      if number == 3:
        os._exit(9)
      if number == 6:
        time.sleep(1000)
      if number == 8:
        connection.send(('failed', number, 'traceback', 'KeyError here'))
      else:
        current[2] += 1
      if number == 9:
        break
    connection.send(('done', {'clean': current[2], 'traceback': 1}))


@pytest.fixture
def worker(monkeypatch):
  monkeypatch.setattr(supervisor, 'HANG_SECONDS', 2.0)
  worker = supervisor.Worker(_serve)
  yield worker
  worker.stop()


def test_a_crash_and_a_hang_are_counted_and_the_next_case_is_run(worker):
  result = fuzz._read(None)
  fuzz._add_slice(worker, 'toy', result, seed=5, seconds=1000, slices=3)
  assert result['cases'] == 10 and result['next'] == {'5': 10}
  assert result['clean'] == 7
  kinds = {f['kind']: f['numbers'] for f in result['failures']}
  assert kinds == {
      'crash': [[5, 3]], 'hang': [[5, 6]], 'traceback': [[5, 8]],
  }  # fmt: skip
  line = fuzz.last_line({'toy': result})
  assert line == 'cases=10 readers=1 crashes=1 hangs=1 tracebacks=1 wrong=0'


def test_failures_for_one_reason_are_one_entry():
  result = fuzz._read(None)
  for number in range(9):
    reason = f'KeyError a.py:3 text {number}'
    fuzz._add_failure(result, 0, number, kind='traceback', reason=reason)
  (failure,) = result['failures']
  assert failure['count'] == 9
  assert failure['numbers'] == [[0, n] for n in range(fuzz._RECORDED)]


def test_mended_failures_are_dropped(worker):
  result = fuzz._read(None)
  for number in (1, 8):
    fuzz._add_failure(result, 0, number, kind='crash', reason=f'{number}')
  fuzz._repeat_failures(worker, 'toy', result)
  assert [f['reason'] for f in result['failures']] == ['8']
  assert result['mended'] == 1


def test_results_add_up_over_starts(tmp_path, capsys):
  cases = 0
  for _ in range(2):
    results = fuzz.fuzz(tmp_path, seconds=1, seed=0, readers=['prompts'])
    stored = json.loads((tmp_path / 'prompts.json').read_text())
    assert stored == results['prompts']
    assert stored['cases'] > cases and not stored['failures']
    assert stored['cases'] == stored['clean'] + stored['accepted']
    assert stored['next'] == {'0': stored['cases']}
    cases = stored['cases']
  assert 'prompts: ' in capsys.readouterr().out


def test_turns_are_of_fast_readers_and_of_the_next_to_be_complete():
  results = {
      name: {'cases': cases, 'cost': cost}
      for name, cases, cost in (
          ('slow', 10, 0.1), ('fast', 900, 1e-3), ('faster', 5000, 2e-4),
          ('new', 0, 0.0),
      )
  }  # fmt: skip
  turns = fuzz._turns(results, time.monotonic() + 100)
  assert next(turns) == 'new'
  results['new'] = {'cases': 20, 'cost': 0.5}
  assert list(itertools.islice(turns, 2)) == ['fast', 'faster']
  results['faster']['cases'] = fuzz._CASES
  assert list(itertools.islice(turns, 2)) == ['fast', 'fast']


def test_an_unknown_reader_and_an_unknown_case_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match='--readers=nothing: none of'):
    fuzz.fuzz(tmp_path, seconds=1, seed=0, readers=['nothing'])
  for case in ('nothing:0:1', 'prompts', 'prompts:0:x'):
    with pytest.raises(errors.UserError, match='must be READER:SEED:NUMBER'):
      fuzz._run_case(case)
  assert fuzz._run_case('prompts:0:1') == 0
