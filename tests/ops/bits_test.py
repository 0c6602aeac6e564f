"""Sets as bits: places and counts, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.ops import bits


@pytest.mark.parametrize('columns', [1, 31, 32, 100])
@pytest.mark.parametrize('share', [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize('cap', [40, 128])
def test_places_are_distinct_set_entries(share, columns, cap):
  mask = np.random.default_rng(0).random((17, columns)) < share
  index, count = jax.jit(bits.places, static_argnums=1)(jnp.asarray(mask), cap)
  assert index.min() >= 0 and index.max() < columns
  np.testing.assert_array_equal(count, mask.sum(axis=1))
  for row, places in zip(mask, np.asarray(index), strict=True):
    places = places[: min(row.sum(), cap)]
    assert len(set(places)) == len(places)
    assert row[places].all()


@pytest.mark.parametrize('size', [5, 32, 77])
def test_find_returns_the_place_of_a_rank_in_each_column(size):
  mask = np.random.default_rng(1).random((size, 9)) < 0.4
  words = bits.pack(jnp.asarray(mask))
  assert words.shape == (-(-size // 32), 9)
  running = bits.running(words)
  np.testing.assert_array_equal(running[-1], mask.sum(axis=0))
  ranks = jnp.arange(mask.sum(axis=0).max(), dtype=jnp.int32)
  actual = np.asarray(bits.find(words, running, ranks))
  assert actual.shape == (len(ranks), 9)
  for column in range(9):
    places = np.flatnonzero(mask[:, column])
    np.testing.assert_array_equal(actual[: len(places), column], places)
