"""A lock is held by one process, and freed when the process dies."""

import pathlib
import subprocess
import sys
import textwrap

import fsspec
import pytest

from jumprelu import errors
from jumprelu.files import locks


class Busy(Exception):
  pass


def _refuse():
  raise Busy


def _hold_elsewhere(path: pathlib.Path) -> subprocess.Popen:
  """Returns a process that holds the lock until its input closes."""
  code = f"""
      import pathlib, sys
      from jumprelu.files import locks
      path = pathlib.Path({str(path)!r})
      with locks.hold(path, where='x', on_busy=lambda: None):
        print('held', flush=True)
        sys.stdin.read()
  """
  process = subprocess.Popen(
      [sys.executable, '-c', textwrap.dedent(code)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
  )
  assert process.stdout.readline() == 'held\n'
  return process


def test_a_lock_is_refused_while_another_process_holds_it(tmp_path):
  path = tmp_path / 'new' / 'a.lock'
  with _hold_elsewhere(path) as process:
    with pytest.raises(Busy), locks.hold(path, where='x', on_busy=_refuse):
      pass
    process.stdin.close()
  with locks.hold(path, where='x', on_busy=_refuse):
    pass


def test_a_lock_is_free_once_its_process_was_killed(tmp_path):
  path = tmp_path / 'a.lock'
  with _hold_elsewhere(path) as process:
    process.kill()
  with locks.hold(path, where='x', on_busy=_refuse):
    pass


def test_a_lock_was_freed_once_its_process_on_this_computer_has_ended(tmp_path):
  path = tmp_path / 'a.lock'
  assert not locks.was_freed(path)
  with _hold_elsewhere(path) as process:
    assert not locks.was_freed(path)
    process.kill()
  assert locks.was_freed(path)
  # The holder was on another computer, whose locks may not be visible here.
  path.write_text('another')
  assert not locks.was_freed(path)


def test_a_busy_lock_is_waited_for_unless_that_is_an_error(tmp_path):
  path = tmp_path / 'a.lock'
  with _hold_elsewhere(path) as process:
    with locks.hold(path, where='x', on_busy=process.stdin.close):
      assert process.wait() == 0


def test_a_folder_that_cannot_be_made_is_named_with_the_cure(tmp_path):
  (tmp_path / 'file').write_text('')
  path = tmp_path / 'file' / 'a.lock'
  with pytest.raises(errors.UserError, match='--out=x: cannot write .*; move'):
    with locks.hold(path, where='--out=x', on_busy=_refuse, cure='move'):
      pass


def test_a_file_of_fsspec_is_created_without_a_lock():
  memory = fsspec.filesystem('memory')

  class MemoryPath(pathlib.PurePosixPath):

    def open(self, mode):
      return memory.open(str(self), mode)

    def mkdir(self, **kwargs):
      memory.makedirs(str(self), exist_ok=True)

  path = MemoryPath('/new/a.lock')
  with locks.hold(path, where='x', on_busy=_refuse):
    pass
  assert memory.exists('/new/a.lock')
