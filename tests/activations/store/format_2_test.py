"""Stores of format 2, whose chunks have checksums, are read and extended."""

import pathlib
import shutil

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.activations.store import arrays, record
from jumprelu.training import train
from tests import small_store

STORE = pathlib.Path(__file__).parents[2] / 'fixtures' / 'format_2' / 'store'
FLAGS = {'sites': ('resid_post',)}


@pytest.fixture
def place(tmp_path):
  return pathlib.Path(shutil.copytree(STORE, tmp_path / 'store'))


def read(path, *, blocks=2):
  """Returns the rows [block, shard, slot, d_site] of the residual stream."""
  source = small_store.open_store(path, tokens=128 * blocks, **FLAGS)
  rows = [source.read(index)['layer_2.resid_post'] for index in range(blocks)]
  return np.stack([np.concatenate(list(x.values())) for x in rows])


def test_its_rows_are_those_of_a_new_store(place, tmp_path, monkeypatch):
  new = tmp_path / 'new'
  with small_store.small_files(monkeypatch):
    small_store.write(new, tokens=256, **FLAGS)
  np.testing.assert_array_equal(read(place), read(new))


def test_a_flipped_byte_is_found_by_the_checksum_of_its_chunk(place):
  path = place / 'layer_2.resid_post/c/1/1/0/0'
  for at, chunk in ((5, '{0, 0, 0, 0}'), (path.stat().st_size // 2, '{1, 0,')):
    small_store.flip(path, at)
    with pytest.raises(errors.DataError, match='Digest mismatch') as e:
      read(place)
    assert chunk in str(e.value) and 'block 1' in str(e.value)
    small_store.flip(path, at)


@pytest.mark.parametrize('part', [0, 1])
def test_a_file_of_another_block_is_found_by_one_shard(
    place, part, monkeypatch
):
  sizes = []
  digests = arrays.digests

  def counted(shards):
    shards = list(shards)
    sizes.append(len(shards))
    return digests(shards)

  monkeypatch.setattr(arrays, 'digests', counted)
  shutil.copy(
      place / f'layer_2.resid_post/c/0/{part}/0/0',
      place / f'layer_2.resid_post/c/1/{part}/0/0',
  )
  with pytest.raises(errors.DataError, match='does not match its digests') as e:
    read(place)
  assert f'layer_2.resid_post/c/1/{part}/0/0' in str(e.value)
  # One of the four shards of each of the two files.
  assert set(sizes) == {2}


def test_blocks_that_extend_it_have_checksums_too(place):
  first_rows = read(place)
  assert small_store.write(place, tokens=128 * 4, **FLAGS) == train.DONE
  _, geometry, lines = record.read_manifest(place)
  assert geometry.crc32c and len(lines) == 4
  arrays.check_files(place, geometry)
  np.testing.assert_array_equal(read(place, blocks=4)[:2], first_rows)
  small_store.flip(place / 'layer_2.resid_post/c/3/0/0/0', 5)
  with pytest.raises(errors.DataError, match='Digest mismatch'):
    read(place, blocks=4)
