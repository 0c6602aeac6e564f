"""JSON files are written atomically and read with checks."""

import io
import json
import pathlib

import fsspec
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.files import json_files


def test_non_finite_numbers_are_written_as_null(tmp_path):
  path = tmp_path / 'value.json'
  value = {'a': np.nan, 'b': [np.inf, {'c': jnp.float32(-np.inf)}], 'd': 1}
  json_files.write_json(path, value)
  assert json.loads(path.read_text()) == {
      'a': None,
      'b': [None, {'c': None}],
      'd': 1,
  }


def test_scalars_of_numpy_and_jax_become_plain_numbers():
  plain = json_files.to_plain({1: np.int64(3), 'x': jnp.float32(0.5)})
  assert plain == {'1': 3, 'x': 0.5}
  assert [type(v) for v in plain.values()] == [int, float]


def test_a_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / 'value.json'
  json_files.write_json(path, {'a': 1})
  with pytest.raises(TypeError):
    json_files.write_json(path, {'a': object()})
  assert json_files.read_json(path) == {'a': 1}


def test_a_missing_file_is_empty_only_on_request(tmp_path):
  path = tmp_path / 'value.json'
  assert json_files.read_json(path, missing_ok=True) == {}
  with pytest.raises(errors.MissingInputError, match=r'value\.json: no such'):
    json_files.read_json(path)


@pytest.mark.parametrize('text', ['{', '[1]', '3', '\x80', '[' * 100_000])
def test_a_file_without_an_object_is_refused_with_the_cure(tmp_path, text):
  path = tmp_path / 'value.json'
  path.write_bytes(text.encode('latin-1'))
  with pytest.raises(errors.DataError, match=r'value\.json: .*; fetch it'):
    json_files.read_json(path, cure='fetch it again')


def test_a_flipped_bit_of_a_sealed_object_is_refused_or_has_no_effect(tmp_path):
  path = tmp_path / 'value.json'
  value = {'rate': 0.1, 'list': [1, {'b': None}], 'name': '\u00e9', '7': True}
  json_files.write_json(path, value | {'nan': np.nan}, seal=True)
  value |= {'nan': None}
  assert json_files.read_json(path, sealed=True) == value
  sound, refused = path.read_bytes(), 0
  for bit in range(8 * len(sound)):
    data = bytearray(sound)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    try:
      assert json_files.read_json(path, sealed=True) == value
    except errors.DataError as error:
      refused += 1
      assert str(path) in str(error)
  assert refused > 6 * len(sound)


def test_a_seal_may_be_required(tmp_path):
  path = tmp_path / 'value.json'
  json_files.write_json(path, {'a': 1})
  assert json_files.read_json(path) == {'a': 1}
  with pytest.raises(errors.DataError, match='damaged or edited.*; fetch it'):
    json_files.read_json(path, sealed=True, cure='fetch it again')


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
  path = tmp_path / 'value.json'
  with path.open('wb') as file:
    file.truncate(2**30)
  with pytest.raises(errors.DataError) as error:
    json_files.read_json(path, cure='fetch it again')
  assert str(error.value) == (
      f'{path}: larger than 64 MiB, too large for a JSON file; fetch it again'
  )


def test_a_file_that_cannot_be_read_is_not_reported_as_bad_json():
  class Unreadable(pathlib.PosixPath):

    def open(self, *args, **kwargs):
      raise PermissionError(13, 'Permission denied')

  with pytest.raises(errors.DataError) as error:
    json_files.read_json(Unreadable(__file__), cure='move it')
  assert str(error.value) == (
      f'{__file__}: cannot be read (Permission denied); move it'
  )


def test_files_of_fsspec_are_written_although_their_descriptor_is_an_error():
  memory = fsspec.filesystem('memory')

  class MemoryPath(pathlib.PurePosixPath):

    def open(self, mode, encoding=None):
      return memory.open(str(self), mode, encoding=encoding)

    def replace(self, target):
      memory.mv(str(self), str(target))

  with memory.open('/a', 'wb') as file, pytest.raises(io.UnsupportedOperation):
    file.fileno()
  json_files.write_json(MemoryPath('/value.json'), {'a': 1})
  json_files.append_line(MemoryPath('/lines.jsonl'), {'a': 2}, durable=True)
  assert json.loads(memory.cat('/value.json')) == {'a': 1}
  assert json.loads(memory.cat('/lines.jsonl')) == {'a': 2}


def test_appended_lines_are_read_back(tmp_path):
  path = tmp_path / 'lines.jsonl'
  json_files.append_line(path, {'b': 1, 'a': np.nan})
  json_files.append_line(path, {'b': 2}, durable=True)
  assert json_files.read_lines(path) == [{'b': 1, 'a': None}, {'b': 2}]
  assert path.read_text().startswith('{"b"')


def test_a_limit_selects_evenly_spaced_lines_by_their_number(tmp_path):
  path = tmp_path / 'lines.jsonl'
  path.write_text(''.join(f'{{"a": {i}}}\n' for i in range(1, 12)) + '{"a"')
  lines = json_files.read_some_lines(path, limit=3, skip_unfinished=True)
  assert lines == {1: {'a': 1}, 6: {'a': 6}, 11: {'a': 11}}
  with pytest.raises(errors.DataError, match='line 12'):
    json_files.read_some_lines(path, limit=3)
  path.write_text('{"a": 1}\n')
  assert json_files.read_some_lines(path, limit=3) == {1: {'a': 1}}


def test_bytes_that_are_no_text_are_refused(tmp_path):
  path = tmp_path / 'lines.jsonl'
  path.write_bytes(b'\xff\n')
  with pytest.raises(errors.DataError, match='lines.jsonl: not text'):
    json_files.read_lines(path)


def test_an_unfinished_last_line_is_skipped_only_on_request(tmp_path):
  path = tmp_path / 'lines.jsonl'
  path.write_text('{"a": 1}\n{"a": ')
  assert json_files.read_lines(path, skip_unfinished=True) == [{'a': 1}]
  with pytest.raises(errors.DataError, match='line 2'):
    json_files.read_lines(path)
