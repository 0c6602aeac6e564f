"""Row i is a pure function of the cache's rows, the seed and i."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from jumprelu.data import cache_writer
from jumprelu.data.cache import TokenCache
from jumprelu.data.cache_writer import Encoded
from jumprelu.data.loader import Loader
from jumprelu.errors import UserError

ROWS = 103
LENGTH = 6


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  """Returns a cache whose row n repeats the token 10 + n."""
  directory = tmp_path_factory.mktemp('cache')
  documents = [Encoded(False, [10 + n] * (LENGTH - 2), 0) for n in range(ROWS)]
  cache_writer.write_caches(
      directory,
      lambda skip: iter(documents[skip:]),
      sequence_length=LENGTH,
      vocab_size=1000,
      record={},
      rows_per_shard=40,
  )
  return TokenCache(directory / 'train')


def _numbers(rows):
  return (np.asarray(rows)[..., 1] - 10).tolist()


def test_an_epoch_visits_every_row_exactly_once(cache):
  loader = Loader(cache, 0)
  for epoch in range(3):
    indices = range(epoch * ROWS, (epoch + 1) * ROWS)
    assert sorted(_numbers(loader.tokens_at(indices))) == list(range(ROWS))


def test_each_epoch_and_seed_has_a_different_order(cache):
  orders = [
      tuple(_numbers(Loader(cache, seed).tokens_at(range(start, start + ROWS))))
      for seed in (0, 1, 2**32 - 1)
      for start in (0, ROWS, 7 * ROWS)
  ]
  assert len(set(orders)) == 9


def test_peer_defect_19_the_shuffle_really_shuffles(cache):
  for seed in range(5):
    order = np.asarray(_numbers(Loader(cache, seed).tokens_at(range(ROWS))))
    # A uniform permutation moves a row by a third of the length on average. It
    # has about one fixed point and keeps about two pairs of neighbours.
    moved = np.abs(order - np.arange(ROWS)).mean() / ROWS
    assert 0.25 < moved < 0.42
    assert (order == np.arange(ROWS)).sum() < 6
    assert (np.abs(np.diff(order)) == 1).sum() < 9


def test_row_i_does_not_depend_on_earlier_reads(cache):
  in_order = Loader(cache, 5).tokens_at(range(300))
  loader = Loader(cache, 5)
  for i in (299, 0, 150, 0, 103, 102):
    np.testing.assert_array_equal(loader.row(i), in_order[i])
  backwards = Loader(cache, 5).tokens_at(range(299, -1, -1))
  np.testing.assert_array_equal(backwards[::-1], in_order)


def test_row_i_does_not_depend_on_the_directory(cache, tmp_path):
  shutil.copytree(cache.directory, tmp_path / 'copy')
  copy = TokenCache(tmp_path / 'copy')
  assert copy.digest == cache.digest
  np.testing.assert_array_equal(
      Loader(copy, 3).tokens_at(range(50)),
      Loader(cache, 3).tokens_at(range(50)),
  )


def test_blocks_are_consecutive_rows_even_beyond_an_epoch(cache):
  loader = Loader(cache, 0)
  blocks = np.concatenate([loader.block(b, 32) for b in range(8)])
  np.testing.assert_array_equal(blocks, loader.tokens_at(range(256)))
  np.testing.assert_array_equal(
      loader.block(1, 256), loader.tokens_at(range(256, 512))
  )


def test_a_block_loads_only_the_requested_rows(cache, monkeypatch):
  loader = Loader(cache, 0)
  whole = loader.block(3, 16)
  loaded = []
  tokens_at = cache.tokens_at

  def spy(indices):
    loaded.extend(indices)
    return tokens_at(indices)

  monkeypatch.setattr(cache, 'tokens_at', spy)
  rows = loader.block(3, 16, rows=slice(4, 12))
  np.testing.assert_array_equal(rows, whole[4:12])
  assert len(loaded) == 8


_HALF = """
import sys
import numpy as np
from jumprelu.data.cache import TokenCache
from jumprelu.data.loader import Loader
directory, half, out = sys.argv[1:]
rows = slice(0, 8) if half == '0' else slice(8, 16)
loader = Loader(TokenCache(directory), 11)
np.save(out, np.stack([loader.block(b, 16, rows=rows) for b in range(9)]))
assert 'tensorflow' not in sys.modules
"""


def test_two_processes_load_the_same_rows_as_one_without_tensorflow(
    cache, tmp_path
):
  halves = [
      subprocess.Popen(
          [
              sys.executable,
              '-c',
              _HALF,
              str(cache.directory),
              str(half),
              str(tmp_path / f'{half}.npy'),
          ]
      )
      for half in range(2)
  ]
  assert [p.wait(timeout=120) for p in halves] == [0, 0]
  both = np.concatenate(
      [np.load(tmp_path / f'{half}.npy') for half in range(2)], axis=1
  )
  loader = Loader(cache, 11)
  expected = [loader.block(b, 16) for b in range(9)]
  np.testing.assert_array_equal(both, expected)


def test_a_cache_without_rows_cannot_be_trained_on(tmp_path):
  cache_writer.write_caches(
      tmp_path,
      lambda skip: iter(()),
      sequence_length=8,
      vocab_size=9,
      record={},
  )
  with pytest.raises(UserError, match='no rows'):
    Loader(TokenCache(tmp_path / 'train'), 0)
