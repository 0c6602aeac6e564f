"""Tests of collections by several devices and processes, killed and locked."""

import hashlib
import json
import shutil

from pyarrow import parquet
import pytest

from jumprelu import errors
from jumprelu.features import collect
from jumprelu.files import locks
from tests import local_processes
from tests.features.conftest import CORPUS, collected

# In every phase, the process is killed after a number of calls of a function.
_KILLED = """
import os, signal, sys
from jumprelu.run import main
from jumprelu.features import arrow, manifest, member_table, segments, text_pass

text_pass.SEGMENT_FIRINGS = 5000
name, calls, when, *argv = sys.argv[1:]
owner, name = name.split('.')
owner = vars(sys.modules['__main__'])[owner]
if '-' in name:
  cls, name = name.split('-')
  owner = getattr(owner, cls)
plain, left = getattr(owner, name), [int(calls)]


def killed(*args, **options):
  left[0] -= 1
  if left[0] == 0 and when == 'before':
    os.kill(os.getpid(), signal.SIGKILL)
  result = plain(*args, **options)
  if left[0] == 0:
    os.kill(os.getpid(), signal.SIGKILL)
  return result


setattr(owner, name, killed)
sys.exit(main.main(['features', *argv]))
"""

POINTS = (
    ('text_pass._sorted', 7, 'before'),  # In the first or second segment.
    ('segments.write', 1, 'after'),
    ('segments.write', 2, 'before'),
    ('arrow.write', 1, 'before'),  # The passages.
    ('arrow.write', 2, 'before'),  # The firings in the passages.
    ('member_table.MemberTable-write', 1, 'before'),
    ('member_table.MemberTable-write', 3, 'after'),
    ('arrow.write', 4, 'before'),  # The vocabulary, after two more members.
    ('manifest.write', 1, 'after'),
)


def _flags(release, out):
  settings = {
      'tokens': 1_400,
      'lm_sequences': 4,
      'examples': 4,
      'texts': 5,
      'text_length': 20,
  }
  return [
      f'--release={release}',
      f'--out={out}',
      *(f'--corpus.{name}={value}' for name, value in CORPUS.items()),
      *(f'--features.{name}={value}' for name, value in settings.items()),
  ]


def _digests(folder):
  return {
      str(path.relative_to(folder)): hashlib.sha256(
          path.read_bytes()
      ).hexdigest()
      for path in sorted(folder.rglob('*'))
      if path.is_file()
  }


@pytest.mark.slow
def test_a_killed_collection_is_resumed_with_the_same_bytes(release, tmp_path):
  script = tmp_path / 'killed.py'
  script.write_text(_KILLED)
  argv = [script, 'manifest.write', 99, 'before']
  local_processes.finish([*argv, *_flags(release, tmp_path / 'whole')])
  whole = _digests(tmp_path / 'whole')
  assert len(whole) == 2 * 5 + 3
  out = tmp_path / 'out'
  # Each run is killed at the next point of the same collection.
  for point in POINTS:
    with local_processes.run([script, *point, *_flags(release, out)]) as child:
      assert child.exit_code() == -9, child.output[-2000:]
    assert not out.exists()
  local_processes.finish([*argv, *_flags(release, out)])
  assert _digests(out) == whole
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'killed.py',
      'out',
      'whole',
  ]


def _close(ours, theirs, where):
  """Checks nested values; floats may differ by rounding."""
  if isinstance(theirs, list):
    assert len(ours) == len(theirs), where
    for x, y in zip(ours, theirs, strict=True):
      _close(x, y, where)
  elif isinstance(theirs, dict):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
      _close(ours[name], value, (*where, name))
  elif isinstance(theirs, float):
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5), where
  else:
    assert ours == theirs, where


def _check_equal(folder, other):
  """Checks that counts and ids are equal, and floats up to rounding."""
  manifests = [
      json.loads((f / 'manifest.json').read_text()) for f in (folder, other)
  ]
  assert manifests[0] == manifests[1]
  names = [p.relative_to(folder) for p in folder.rglob('*.parquet')]
  assert len(names) > 10
  for name in names:
    ours, theirs = (parquet.read_table(f / name) for f in (other, folder))
    assert ours.schema == theirs.schema
    for column in theirs.column_names:
      _close(
          ours[column].to_pylist(), theirs[column].to_pylist(), (name, column)
      )


@pytest.mark.slow
def test_devices_and_processes_collect_the_same(release, tmp_path):
  def command(name):
    return [
        '-m',
        'jumprelu.run.main',
        'features',
        *_flags(release, tmp_path / name),
    ]

  for devices in (1, 2, 8):
    local_processes.finish(command(str(devices)), devices=devices)
  with local_processes.run_together(
      command('processes'), devices=2
  ) as children:
    for child in children:
      assert child.exit_code() == 0, child.output[-4000:]
  for name in ('2', '8', 'processes'):
    _check_equal(tmp_path / '1', tmp_path / name)


def test_a_second_command_is_refused_while_the_first_runs(release, tmp_path):
  out = tmp_path / 'out'
  lock = tmp_path / 'out.partial' / collect._LOCK
  with locks.hold(lock, where='', on_busy=lambda: None):
    with pytest.raises(
        errors.UserError, match='^--out=.*another process is collecting'
    ):
      collected(release, out, paths=['transcoder'])
  collected(release, out, paths=['transcoder'])
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_a_collection_that_fails_at_once_leaves_nothing(release, tmp_path):
  with pytest.raises(errors.UserError):
    collected(release, tmp_path / 'out', paths=['transcoder'], seed=-1)
  (tmp_path / 'x').mkdir()
  with pytest.raises(errors.UserError, match='exists'):
    collected(release, tmp_path / 'x', paths=['transcoder'])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(collect, '_load_model', lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      collected(release, tmp_path / 'out', paths=['transcoder'])
  assert [path.name for path in tmp_path.iterdir()] == ['x']
  shutil.rmtree(tmp_path / 'x')
