"""Damaged stores are refused in one line: file, block and cure."""

import json
import pathlib
import shutil
import zlib

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.activations.store import arrays
from tests import small_store, toy_suite


@pytest.fixture
def damaged(tmp_path, written):
  path = tmp_path / 'store'
  shutil.copytree(written, path)
  return path


def refused(path, *words):
  """Checks the one-line error of opening and reading a damaged store."""
  with pytest.raises(errors.DataError) as e:
    stored = small_store.open_store(path)
    for index in range(4):
      stored.make_block(index, stored.estimate_scales())
  message = str(e.value)
  assert e.value.exit_code == 65
  assert '\n' not in message
  for word in words:
    assert str(word) in message
  return message


def a_file(path, name='layer_2.mlp_out', block=2, part=1):
  rest = '0' if name == 'keep' else '0/0'
  return path / f'{name}/c/{block}/{part}/{rest}'


@pytest.mark.parametrize('name', ['layer_2.mlp_out', 'keep'])
@pytest.mark.parametrize('at', range(0, 4096, 512))
def test_a_flipped_byte_of_a_row_names_file_and_block(damaged, name, at):
  path = a_file(damaged, name)
  rows = 4 * 2 * 4 * (1 if name == 'keep' else 24 * 4)
  small_store.flip(path, at * rows // 4096)
  refused(damaged, path, 'block 2 does not match its digests', 'harvest it')


@pytest.mark.parametrize('name', ['layer_2.mlp_out', 'keep'])
def test_a_flipped_byte_of_the_index_names_file_and_block(damaged, name):
  small_store.flip(a_file(damaged, name), -9)
  message = refused(damaged, a_file(damaged, name), 'block 2', 'harvest it')
  assert 'Digest mismatch' in message


def test_the_blocks_before_the_damage_are_read(damaged):
  small_store.flip(a_file(damaged), 5)
  stored = small_store.open_store(damaged)
  for index in range(2):
    stored.make_block(index, stored.estimate_scales())


def test_a_process_reads_only_the_files_of_its_devices(damaged, monkeypatch):
  small_store.flip(a_file(damaged, part=3), 5)
  stored = small_store.open_store(damaged, mesh=toy_suite.make_mesh(8))
  # As if another process had the devices of the last two logical shards.
  stored._shards = stored._shards[:6]
  rows = stored.read(2)
  assert sorted(rows['layer_2.mlp_out']) == [0, 1, 2, 3, 4, 5]
  stored._shards = [(6, 7)]
  with pytest.raises(errors.DataError, match='block 2'):
    stored.read(2)


def test_a_truncated_file_is_detected_at_opening(damaged):
  path = a_file(damaged)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(errors.DataError, match='bytes instead of'):
    small_store.open_store(damaged)
  refused(damaged, path, 'block 2')


def test_a_missing_file_is_detected_at_opening(damaged):
  path = a_file(damaged, 'keep')
  path.unlink()
  with pytest.raises(errors.DataError, match='missing'):
    small_store.open_store(damaged)
  refused(damaged, path, 'block 2', 'remove the store')


def test_a_file_of_another_block_is_refused(damaged):
  shutil.copy(a_file(damaged, block=1), a_file(damaged))
  refused(damaged, a_file(damaged), 'block 2 does not match its digests')


@pytest.mark.parametrize('isal', [True, False])
@pytest.mark.parametrize('small', [0, 2**22])
def test_digests_are_the_crc_32_of_each_shard(monkeypatch, isal, small):
  if not isal:
    monkeypatch.setattr(arrays, '_crc32', zlib.crc32)
  monkeypatch.setattr(arrays, '_SMALL', small)
  rows = np.random.default_rng(0).standard_normal((5, 4, 3), np.float32)
  expected = [zlib.crc32(x.tobytes()) for x in rows]
  assert arrays.digests(rows) == expected
  assert arrays.digests(x.T for x in rows.transpose(0, 2, 1)) == expected


def test_another_shape_is_refused(damaged):
  path = damaged / 'layer_2.mlp_out' / 'zarr.json'
  path.write_text(path.read_text().replace('[16,8,4,24]', '[16,8,4,25]'))
  refused(damaged, path, 'does not match the manifest')


def test_a_spec_in_a_file_cannot_name_another_folder(damaged):
  path = damaged / 'layer_2.mlp_out' / 'zarr.json'
  path.write_text(
      '{"driver": "zarr3", "kvstore": {"driver": "file", "path": "/etc/"}}'
  )
  refused(damaged, path)


def test_a_store_without_a_manifest_is_incomplete(damaged):
  (damaged / 'manifest.json').unlink()
  refused(damaged, 'manifest.json', 'incomplete', 'remove the store')


def test_the_error_of_a_stopped_store_is_cured_by_the_same_command(
    tmp_path, job
):
  small_store.write(tmp_path, job, stop=(1,))
  refused(
      tmp_path, 'incomplete', 'the same `jumprelu harvest` command resumes it'
  )


def edit(path, name, value):
  manifest = json.loads((path / 'manifest.json').read_text())
  (path / 'manifest.json').write_text(json.dumps(manifest | {name: value}))


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('format', 99, 'a store of format 99, written by jumprelu'),
        ('complete', False, 'is not marked as complete'),
        ('scales', {'layer_2.mlp_out': 1.0}, 'does not match its own digest'),
    ],
)
def test_a_manifest_with_a_changed_field_is_refused(
    damaged, name, value, words
):
  edit(damaged, name, value)
  refused(damaged, 'manifest.json', words)


@pytest.mark.parametrize('content', ['', '[]', '{', '\xff'])
def test_a_manifest_without_a_json_object_is_refused(damaged, content):
  (damaged / 'manifest.json').write_bytes(content.encode('latin-1'))
  refused(damaged, 'manifest.json')


def test_changed_records_of_blocks_are_refused(damaged):
  path = damaged / 'blocks.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[:3] + lines[2:3]))
  refused(damaged, path)


def test_the_error_of_a_missing_store_names_the_command(tmp_path):
  with pytest.raises(errors.MissingInputError, match='harvest --store=') as e:
    small_store.open_store(pathlib.Path(tmp_path) / 'nowhere')
  assert e.value.exit_code == 66
