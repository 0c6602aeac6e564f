"""Pointers of Git LFS are named as such by every reader of large files."""

import pytest

from jumprelu import data, errors
from jumprelu.files import cache_folder, json_files, lfs, npz
from jumprelu.lm import weights

POINTER = (
    'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9000\n'
)


@pytest.mark.parametrize(
    'name, read',
    [
        ('params.npz', npz.header),
        ('model.safetensors', weights.header),
        ('tokenizer.model', data.Tokenizer),
    ],
)
def test_a_pointer_is_named_with_its_cure(tmp_path, name, read):
  path = tmp_path / name
  path.write_text(POINTER)
  assert lfs.is_pointer(path)
  with pytest.raises(errors.DataError, match=f'{name}: a pointer of Git LFS'):
    read(path)


def test_a_tokenizer_of_another_format_is_named(tmp_path):
  (tmp_path / 'tokenizer.json').write_text('{}')
  with pytest.raises(errors.MissingInputError, match='tokenizer.json beside'):
    data.Tokenizer(tmp_path / 'tokenizer.model')


def test_a_byte_order_mark_before_json_is_skipped(tmp_path):
  (tmp_path / 'a.json').write_bytes(b'\xef\xbb\xbf{"n": 1}')
  assert json_files.read_json(tmp_path / 'a.json') == {'n': 1}


def test_a_tilde_in_the_folder_of_caches_is_expanded(monkeypatch):
  monkeypatch.setenv('HOME', '/home/somebody')
  monkeypatch.setenv('JUMPRELU_CACHE', '~/caches')
  assert str(cache_folder.cache()) == '/home/somebody/caches'
