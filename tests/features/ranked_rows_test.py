"""Tests of the fast parts of tables against plain code."""

import threading
import time

import numpy as np
import pytest
from scipy import sparse

from jumprelu.features import coactivation, ranked_rows, statistics, tables


@pytest.mark.parametrize('count', [1, 3, 50])
@pytest.mark.parametrize('dtype', [np.float64, np.uint64])
def test_the_first_of_each_row_are_those_of_a_full_sort(count, dtype):
  rng = np.random.default_rng(count)
  sizes = rng.integers(0, 30, 40)
  sizes[[0, 7, -1]] = 0, 300, 0
  starts = np.append(0, np.cumsum(sizes))
  # Few distinct keys, so that there are ties.
  keys = rng.integers(0, 9, starts[-1]).astype(dtype)
  ties = rng.permutation(starts[-1])
  for order in (None, ties):
    expected = []
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
      row = range(start, stop)
      expected += sorted(
          row, key=lambda i: (keys[i], i if order is None else order[i])
      )[:count]
    shown = ranked_rows.first(starts, keys, count, ties=order)
    assert shown.tolist() == expected
  assert len(ranked_rows.first(np.zeros(5, int), keys[:0], count)) == 0


def test_bins_of_the_histogram_are_those_of_a_search():
  edges = statistics.EDGES
  near = [np.nextafter(edges, np.float32(x)) for x in (-np.inf, np.inf)]
  rng = np.random.default_rng(0)
  values = np.concatenate(
      [
          edges,
          *near,
          rng.lognormal(0, 4, 5_000),
          [0, -1, -1e9, 1e-30, 1e30, np.inf],
      ]
  ).astype(np.float32)
  np.testing.assert_array_equal(
      statistics.histogram_bin(values), np.searchsorted(edges, values, 'right')
  )


@pytest.mark.parametrize('gain', [0, 1e9])
@pytest.mark.parametrize('entries', [100, 1 << 20])
def test_both_products_count_pairs(monkeypatch, gain, entries):
  monkeypatch.setattr(coactivation, '_DENSE_GAIN', gain)
  monkeypatch.setattr(coactivation, '_DENSE_ENTRIES', entries)
  # More than 16 bits can count.
  fires = np.random.default_rng(0).random((70_000, 6)) < [
      0,
      0.1,
      0.5,
      0.9,
      1,
      1,
  ]
  every = sparse.csr_array(fires.astype(np.int32))
  of_block = sparse.csr_array(every[:, 2:5].T)
  both = coactivation._product(of_block, every).toarray()
  np.testing.assert_array_equal(both, fires[:, 2:5].T.astype(int) @ fires)
  assert both.max() == 70_000


def test_results_of_threads_are_in_order_and_few_wait():
  started, threads = [], set()

  def work(i):
    started.append(i)
    threads.add(threading.get_ident())
    time.sleep(0.02 if i % 3 == 0 else 0.001)
    return i * i

  results = tables.in_order(work, range(30), threads=3)
  for i, result in enumerate(results):
    assert result == i * i
    assert len(started) <= i + 2 * 3
  assert len(threads) == 3


def test_the_error_of_a_thread_ends_the_others():
  started = []

  def work(i):
    started.append(i)
    return 1 / (i - 4)

  with pytest.raises(ZeroDivisionError):
    list(tables.in_order(work, range(100), threads=2))
  assert len(started) < 12
