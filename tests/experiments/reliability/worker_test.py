"""The worker sees failures of readers that fail on purpose."""

import functools
import itertools
import os
import pathlib
import sys

import numpy as np
import pytest

from experiments.reliability import mutations, worker
from experiments.reliability.readers import base, registry
from jumprelu import errors

_VALID = b'0123456789'


@functools.cache
def _watch():
  sys.addaudithook(worker._audit)


def _make(folder):
  (folder / 'a.txt').write_bytes(_VALID)


def _outcomes(tmp_path, read, *, count=40, **fields):
  """Returns the outcomes of cases of a reader."""
  _watch()
  fields = {'mutations': {'a.txt': (mutations.of_bytes,)}, **fields}
  folder = tmp_path / 'inputs'
  folder.mkdir()
  bench = worker.Bench(base.Reader('toy', _make, read, **fields), folder)
  outcomes = [bench.run(0, number) for number in range(count)]
  assert (folder / 'a.txt').read_bytes() == _VALID
  return outcomes


def _read(folder):
  path = folder / 'a.txt'
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: missing')
  return path.read_bytes()


def test_errors_of_the_package_are_clean(tmp_path):
  def read(folder):
    if _read(folder) != _VALID:
      raise errors.DataError('damaged')

  kinds = {outcome.kind for outcome in _outcomes(tmp_path, read)}
  assert kinds <= {worker.CLEAN, worker.ACCEPTED} and worker.CLEAN in kinds


def test_another_error_is_a_traceback_with_its_place(tmp_path):
  def read(folder):
    if _read(folder) != _VALID:
      raise KeyError('field')

  outcomes = _outcomes(tmp_path, read)
  outcome = next(o for o in outcomes if o.kind == worker.TRACEBACK)
  assert outcome.reason.startswith('KeyError jumprelu/run/main.py:')


@pytest.mark.parametrize(
    'protection, kind',
    [
        (base.Protection.NONE, worker.ACCEPTED),
        (base.Protection.VALUES, worker.WRONG),
        (base.Protection.BYTES, worker.WRONG),
    ],
)
def test_accepted_damage_is_wrong_only_if_there_is_a_digest(
    tmp_path, protection, kind
):
  outcomes = _outcomes(tmp_path, _read, protection=protection)
  kinds = {outcome.kind for outcome in outcomes} - {worker.CLEAN}
  assert kind in kinds and (worker.WRONG in kinds) == (kind == worker.WRONG)


def test_unused_bytes_may_change_if_only_values_are_protected(tmp_path):
  values = base.Protection.VALUES
  read = lambda folder: bool(_read(folder)) or True  # noqa: E731
  outcomes = _outcomes(tmp_path, read, protection=values)
  assert worker.WRONG not in {outcome.kind for outcome in outcomes}


def test_a_file_outside_of_the_folder_is_wrong(tmp_path):
  def read(folder):
    if _read(folder) != _VALID:
      (tmp_path / 'evil').write_text('a')

  outcomes = _outcomes(tmp_path, read)
  wrong = [outcome for outcome in outcomes if outcome.kind == worker.WRONG]
  assert wrong and 'evil' in wrong[0].reason


def test_another_program_is_wrong(tmp_path):
  def read(folder):
    if _read(folder) != _VALID:
      os.system('true')

  outcomes = _outcomes(tmp_path, read)
  assert 'os.system' in next(o.reason for o in outcomes if o.reason)


def test_values_that_no_reader_may_return_are_wrong(tmp_path):
  def read(folder):
    if _read(folder) != _VALID:
      base.check_finite({'W': np.asarray([np.nan])}, 'a')

  kinds = {outcome.kind for outcome in _outcomes(tmp_path, read)}
  assert worker.WRONG in kinds


def test_a_folder_that_the_reader_changes_is_restored(tmp_path):
  def read(folder):
    content = _read(folder)
    (folder / 'a.txt').unlink()
    (folder / 'b.txt').write_bytes(content)

  _outcomes(tmp_path, read, writes=True)
  assert [p.name for p in (tmp_path / 'inputs').iterdir()] == ['a.txt']


def test_patterns_name_files_of_any_or_of_one_folder():
  assert worker._matches('a/b/c.json', '**/*.json')
  assert worker._matches('c.json', '**/*.json')
  assert worker._matches('a/c.json', '*/c.json')
  assert not worker._matches('a/b/c.json', '*/c.json')
  assert not worker._matches('a/c.json', '*.json')


@pytest.mark.parametrize('name', ['prompts', 'requests', 'text_jsonl'])
def test_a_reader_has_no_failures_and_no_more_memory(name):
  failures = []

  def ended(number, outcome):
    if outcome.kind in worker.FAILURES:
      failures.append((number, outcome))

  counts = worker.run(
      name, 7, itertools.islice(itertools.count(), 30), seconds=60, ended=ended
  )
  assert sum(counts.values()) == 30 and not failures


@pytest.mark.slow
@pytest.mark.parametrize('name', registry.all_readers())
def test_every_reader_reads_its_inputs_and_refuses_damage(name, tmp_path):
  reader = registry.all_readers()[name]
  folder = tmp_path / 'inputs'
  folder.mkdir()
  bench = worker.Bench(reader, pathlib.Path(folder))
  outcomes = [bench.run(8, number) for number in range(20)]
  assert not [o for o in outcomes if o.kind in worker.FAILURES]
