"""A mutation is determined by its seed, and keeps an archive readable."""

import gzip
import io
import json
import random
import zipfile

import numpy as np
import pytest

from experiments.reliability import archives, mutations


def _npz():
  file = io.BytesIO()
  np.savez(file, a=np.arange(8, dtype=np.float32), b=np.ones((2, 3)))
  return file.getvalue()


def _npy():
  file = io.BytesIO()
  np.save(file, np.arange(8, dtype=np.float32))
  return file.getvalue()


_JSON = json.dumps({'a': [1, 2.5, {'b': None}], 'c': 'text'}).encode()
_HEADER = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
_INPUTS = {
    mutations.of_bytes: bytes(range(256)) * 4,
    mutations.of_text: b'one 1\ntwo 2\nthree 3\n',
    mutations.of_json: _JSON,
    mutations.of_lines: _JSON + b'\n' + _JSON + b'\n',
    mutations.of_arguments: b'--tokens=2M\n--layer=1\n--help',
    archives.of_zip: _npz(),
    archives.of_npy: _npy(),
    archives.of_safetensors: len(_HEADER).to_bytes(8, 'little')
    + _HEADER
    + bytes(8),
    archives.of_gzip: gzip.compress(_JSON + b'\n'),
}


@pytest.mark.parametrize('change', _INPUTS, ids=lambda f: f.__name__)
def test_a_seed_determines_a_mutation(change):
  data = _INPUTS[change]
  results = [change(data, random.Random(seed)) for seed in range(300)]
  again = [change(data, random.Random(seed)) for seed in range(300)]
  assert results == again
  assert len(set(results)) > 100
  assert sum(result != data for result in results) > 200


def test_empty_files_are_left_as_they_are():
  for seed in range(50):
    mutations.of_bytes(b'', random.Random(seed))
    mutations.of_text(b'', random.Random(seed))


def test_most_changed_json_is_json_with_hostile_values():
  valid, nested = 0, 0
  for seed in range(300):
    result = mutations.of_json(_JSON, random.Random(seed))
    try:
      json.loads(result)
      valid += 1
    except RecursionError:
      nested += 1
    except ValueError:
      pass
  assert valid > 200 and nested > 2


def test_an_archive_that_was_written_anew_has_right_checksums():
  sound = 0
  for seed in range(200):
    data = archives.of_zip(_npz(), random.Random(seed))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      sound += archive.testzip() is None
  assert sound == 200
