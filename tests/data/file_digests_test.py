"""Digests of files that have not changed are read from a record."""

import hashlib
import os

import pytest

from jumprelu import errors
from jumprelu.data import file_digests

_OLD = 10**18  # Nanoseconds since the epoch, in 2001.


@pytest.fixture(autouse=True)
def always(monkeypatch):
  """Keeps records of fast reads and of files that were just written."""
  monkeypatch.setattr(file_digests, '_SECONDS', 0.0)
  monkeypatch.setattr(file_digests, '_GRAIN', -60.0)


@pytest.fixture
def paths(tmp_path):
  made = [tmp_path / f'{name}.txt' for name in 'abc']
  for path in made:
    path.write_text(f'text of {path.name}')
  return made


def _digests(paths, *, check=lambda path: None):
  """Returns the digests, and the files that were read."""
  read = []

  def note(path):
    read.append(path)
    check(path)

  cache = paths[0].parent / 'cache'
  made = file_digests.digests(paths, cache=cache, check=note)
  for path, digest in zip(paths, made, strict=True):
    data = path.read_bytes()
    assert digest == (len(data), hashlib.sha256(data).hexdigest())
  return read


def test_unchanged_files_are_not_read_again(paths):
  assert _digests(paths) == paths
  assert not _digests(paths)


def test_a_changed_file_of_the_same_size_and_time_is_read_again(paths):
  os.utime(paths[1], ns=(_OLD, _OLD))
  _digests(paths)
  paths[1].write_text('TEXT of b.txt')
  os.utime(paths[1], ns=(_OLD, _OLD))
  assert _digests(paths) == [paths[1]]


def test_a_replaced_file_is_read_again(paths):
  _digests(paths)
  new = paths[0].with_suffix('.new')
  new.write_text('TEXT of a.txt')
  new.replace(paths[0])
  assert _digests(paths) == [paths[0]]


def test_a_file_that_was_just_written_is_read_again(paths, monkeypatch):
  monkeypatch.setattr(file_digests, '_GRAIN', 60.0)
  assert _digests(paths) == _digests(paths) == paths


def test_fast_reads_leave_no_record(paths, monkeypatch):
  monkeypatch.setattr(file_digests, '_SECONDS', 60.0)
  _digests(paths)
  assert not (paths[0].parent / 'cache').exists()


@pytest.mark.parametrize('content', ['', '{"a": 1}', '[' * 10**5])
def test_a_damaged_record_is_ignored(paths, content):
  _digests(paths)
  (record,) = (paths[0].parent / 'cache' / 'file_digests').iterdir()
  record.write_text(content)
  assert _digests(paths) == paths


def test_a_record_with_another_digest_is_ignored(paths):
  _digests(paths)
  (record,) = (paths[0].parent / 'cache' / 'file_digests').iterdir()
  digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
  record.write_text(record.read_text().replace(digest, '0' * 64))
  assert _digests(paths) == paths


def test_a_file_that_is_refused_is_read_again(paths):
  def refuse(path):
    raise errors.UserError(f'{path}: no text')

  for _ in range(2):
    with pytest.raises(errors.UserError, match='a.txt: no text'):
      _digests(paths, check=refuse)


def test_a_folder_that_is_not_writable_is_no_error(paths):
  (paths[0].parent / 'cache').write_text('a file')
  assert _digests(paths) == _digests(paths) == paths
