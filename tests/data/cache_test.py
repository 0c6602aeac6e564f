"""A damaged cache is refused with one line that names the file."""

import json

from array_record.python import array_record_module
import numpy as np
import pytest

from jumprelu.data import cache_writer
from jumprelu.data.cache import TokenCache
from jumprelu.errors import DataError, MissingInputError

LENGTH = 8


def _documents(skip):
  for i in range(skip, 12):
    yield cache_writer.Encoded(
        False, list(range(100 * i + 10, 100 * i + 20)), 3
    )


@pytest.fixture
def directory(tmp_path):
  cache_writer.write_caches(
      tmp_path,
      _documents,
      sequence_length=LENGTH,
      vocab_size=5000,
      record={'user_prefix': [1, 2]},
      rows_per_shard=7,
  )
  return tmp_path / 'train'


def _edit_manifest(directory, **changes):
  path = directory / 'manifest.json'
  manifest = json.loads(path.read_text())
  manifest.update(changes)
  # As an older version or another program writes it.
  manifest.pop('sha256_of_fields', None)
  path.write_text(json.dumps(manifest))


def _fault(directory, error=DataError):
  with pytest.raises(error) as caught:
    TokenCache(directory)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def _shards(directory):
  return sorted(directory.glob('*.array_record'))


def test_rows_are_read_across_shards(directory):
  cache = TokenCache(directory)
  assert len(_shards(directory)) > 2
  rows = cache.tokens_at(range(len(cache)))
  kept = rows[rows > 2]
  expected = [t for i in range(12) for t in range(100 * i + 10, 100 * i + 20)]
  assert kept.tolist() == expected
  indices = np.asarray([len(cache) - 1, 0, 9, 9, 3])
  np.testing.assert_array_equal(cache.tokens_at(indices), rows[indices])


def test_an_empty_list_of_indices_is_allowed(directory):
  assert TokenCache(directory).tokens_at([]).shape == (0, LENGTH)


def test_rows_out_of_range_are_an_error(directory):
  cache = TokenCache(directory)
  for bad in (-1, len(cache)):
    with pytest.raises(IndexError, match='out of range'):
      cache.tokens_at([0, bad])


def test_records_are_one_per_group_and_as_small_as_the_vocabulary_allows(
    directory,
):
  reader = array_record_module.ArrayRecordReader(str(_shards(directory)[0]))
  assert 'group_size:1,' in reader.writer_options_string()
  assert len(reader.read([0])[0]) == 2 * LENGTH
  reader.close()


def test_a_large_vocabulary_is_stored_in_full(tmp_path):
  ids = [70_000, 200_001, 5]
  cache_writer.write_caches(
      tmp_path,
      lambda skip: iter([cache_writer.Encoded(True, ids, 0)][skip:]),
      sequence_length=6,
      vocab_size=262_144,
      record={},
  )
  row = TokenCache(tmp_path / 'held_out').tokens_at([0])
  assert row.tolist() == [[2, *ids, 1, 0]]


def test_a_missing_directory_is_missing_input(tmp_path):
  assert 'nowhere' in _fault(tmp_path / 'nowhere', MissingInputError)


def test_a_missing_manifest_is_incomplete(directory):
  (directory / 'manifest.json').unlink()
  assert 'manifest.json: missing' in _fault(directory)


@pytest.mark.parametrize('content', ['', '{"records": ', '[]', 'null'])
def test_a_malformed_manifest_is_refused(directory, content):
  (directory / 'manifest.json').write_text(content)
  assert 'manifest.json' in _fault(directory)


@pytest.mark.parametrize(
    'change, words',
    [
        ({'complete': False}, 'complete'),
        ({'format': 99}, 'format 99'),
        ({'records': 1}, 'sum of the shards'),
        ({'records': None}, 'records must be a number'),
        ({'shards': 'x'}, 'shards must list'),
        ({'shards': ['x']}, 'shards must list'),
        ({'shards': [{'file': 'a', 'records': 1.0}]}, 'shards must list'),
        ({'sequence_length': 2**40}, 'sequence_length must be'),
        ({'dtype': 'object'}, 'dtype must be'),
        ({'user_prefix': [None]}, 'user_prefix must list'),
    ],
)
def test_a_wrong_manifest_is_refused(directory, change, words):
  _edit_manifest(directory, **change)
  assert words in _fault(directory)


@pytest.mark.parametrize(
    'old, new',
    [
        (b' 1,\n', b' 3,\n'),  # a token of the user's prefix
        (b'"uint16"', b'"uint17"'),
        (b'"tokens"', b'"uokens"'),
    ],
)
def test_a_flipped_bit_of_the_manifest_is_refused(directory, old, new):
  path = directory / 'manifest.json'
  sound = path.read_bytes()
  assert old in sound
  path.write_bytes(sound.replace(old, new, 1))
  assert 'damaged or edited' in _fault(directory)


def test_a_manifest_without_a_field_is_refused(directory):
  path = directory / 'manifest.json'
  manifest = json.loads(path.read_text())
  del manifest['digest'], manifest['sha256_of_fields']
  path.write_text(json.dumps(manifest))
  assert "no field 'digest'" in _fault(directory)


def test_a_missing_shard_is_named(directory):
  shard = _shards(directory)[1]
  shard.unlink()
  assert f'{shard}: shard is missing' in _fault(directory)


def test_a_truncated_shard_is_named(directory):
  shard = _shards(directory)[1]
  raw = shard.read_bytes()
  shard.write_bytes(raw[: len(raw) // 2])
  assert f'{shard}: shard has {len(raw) // 2} bytes' in _fault(directory)


@pytest.mark.parametrize('share', [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_shard_is_detected_by_its_record_count_too(
    directory, share
):
  shard = _shards(directory)[1]
  raw = shard.read_bytes()
  shard.write_bytes(raw[: int(share * len(raw))])
  shards = json.loads((directory / 'manifest.json').read_text())['shards']
  shards[1]['bytes'] = shard.stat().st_size
  _edit_manifest(directory, shards=shards)
  assert f'{shard}: shard holds 0 records' in _fault(directory)


def test_a_shard_of_another_cache_is_named(directory):
  first, second = _shards(directory)[0], _shards(directory)[-1]
  shards = json.loads((directory / 'manifest.json').read_text())['shards']
  assert shards[0]['records'] != shards[-1]['records']
  second.write_bytes(first.read_bytes())
  shards[-1]['bytes'] = second.stat().st_size
  _edit_manifest(directory, shards=shards)
  assert f'{second}: shard holds' in _fault(directory)


def test_a_damaged_record_is_named_and_the_others_are_read(directory):
  cache = TokenCache(directory)
  index = json.loads((directory / 'manifest.json').read_text())['shards'][0][
      'records'
  ]
  row = cache.tokens_at([index + 2])[0]
  shard = _shards(directory)[1]
  raw = bytearray(shard.read_bytes())
  offset = bytes(raw).index(row.astype(np.uint16).tobytes())
  raw[offset + 5] ^= 1
  shard.write_bytes(raw)
  damaged = TokenCache(directory)
  others = [i for i in range(len(cache)) if i != index + 2]
  np.testing.assert_array_equal(
      damaged.tokens_at(others), cache.tokens_at(others)
  )
  with pytest.raises(DataError) as caught:
    damaged.tokens_at([0, index + 2])
  assert f'{shard}: record 2 is damaged' in str(caught.value)
  assert caught.value.exit_code == 65


def test_a_manifest_cannot_name_a_shard_in_another_directory(
    directory, tmp_path
):
  outside = tmp_path / 'outside.array_record'
  shard = _shards(directory)[0]
  shard.rename(outside)
  shards = json.loads((directory / 'manifest.json').read_text())['shards']
  shards[0]['file'] = '../outside.array_record'
  _edit_manifest(directory, shards=shards)
  assert f'{directory / "outside.array_record"}: shard is' in _fault(directory)


@pytest.mark.parametrize(
    'changes, field',
    [
        ({'shards': 1.5}, 'shards'),
        ({'shards': [[]]}, 'shards'),
        ({'shards': ['a']}, 'shards'),
        ({'shards': [{'file': [], 'records': 1, 'bytes': 1}]}, 'shards'),
        ({'shards': [{'file': 'a', 'records': '1', 'bytes': 1}]}, 'shards'),
        ({'shards': [{'file': 'a', 'records': 1}]}, 'shards'),
        ({'records': [1]}, 'records'),
        ({'records': '4'}, 'records'),
        ({'sequence_length': '8'}, 'sequence_length'),
        ({'sequence_length': 10**12}, 'sequence_length'),
        ({'sequence_length': 0}, 'sequence_length'),
        ({'dtype': 'float32'}, 'dtype'),
        ({'dtype': []}, 'dtype'),
        ({'digest': None}, 'digest'),
        ({'user_prefix': 5}, 'user_prefix'),
        ({'user_prefix': ['a']}, 'user_prefix'),
    ],
)
def test_a_field_of_a_wrong_type_is_named(directory, changes, field):
  _edit_manifest(directory, **changes)
  assert f'manifest.json: {field}' in _fault(directory)


def test_a_shard_that_is_listed_twice_is_refused(directory):
  manifest = json.loads((directory / 'manifest.json').read_text())
  first, *rest = manifest['shards']
  _edit_manifest(
      directory,
      shards=[first, first, *rest],
      records=manifest['records'] + first['records'],
  )
  assert 'shards names a file twice' in _fault(directory)
