"""Free space is compared before the first write of every kind of folder."""

import shutil

import pytest

from jumprelu import data, errors
from jumprelu.files import disk
from jumprelu.release import write
from tests import small_release, toy_run


@pytest.fixture
def full(monkeypatch, tmp_path):
  """Makes every disk almost full."""
  usage = shutil.disk_usage(tmp_path)._replace(free=100)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)


def refused(folder, call):
  with pytest.raises(
      errors.FullDiskError, match='bytes, but 100 are free'
  ) as e:
    call()
  message = str(e.value)
  assert message.startswith(f'{folder}') and '\n' not in message
  assert errors.exit_code(e.value) == 75


def test_a_folder_that_does_not_exist_is_checked_by_its_parents(tmp_path):
  folder = tmp_path / 'a' / 'b'
  disk.require(folder, 1, what='a file')
  free = shutil.disk_usage(tmp_path).free
  with pytest.raises(errors.FullDiskError, match='a/b: a file needs'):
    disk.require(folder, 2 * free, what='a file')
  disk.require('gs://bucket/folder', 2 * free, what='a file')


def test_checkpoints_are_checked_before_training(full, tmp_path):
  out = tmp_path / 'run'
  refused(out / 'checkpoints', lambda: toy_run.run(out))
  assert not (out / 'metrics.jsonl').exists()


def test_a_release_is_checked_before_it_is_written(full, tmp_path):
  members = small_release.make_members()
  refused(
      tmp_path,
      lambda: write.write_release(
          members, tmp_path / 'release', provenance=small_release.PROVENANCE
      ),
  )
  assert not (tmp_path / 'release').exists()


def test_a_token_cache_is_checked_before_it_is_written(full, tmp_path, nano):
  (tmp_path / 'a.txt').write_text('some words ' * 1000)
  config = data.Config(cache_dir=str(tmp_path / 'cache'))
  refused(
      tmp_path / 'cache',
      lambda: data.prepare(str(tmp_path / 'a.txt'), nano, config),
  )
  assert not list((tmp_path / 'cache').rglob('*.array_record'))


@pytest.fixture
def nano():
  from jumprelu import lm

  files = lm.find('gemma2_nano')
  return data.Tokenizer(files.tokenizer_path, rows=files.config.vocab)
