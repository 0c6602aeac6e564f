"""Statistics that merge: averages, moments and counters."""

import jax
import numpy as np

from jumprelu import metrics


def make_sequences(seed, sequences=40):
  """Returns totals that depend on their counts, like losses of sequences."""
  rng = np.random.default_rng(seed)
  counts = rng.integers(1, 30, sequences)
  per_token = rng.gamma(2.0, 1.0, sequences)
  return per_token * counts + rng.normal(0, 0.5, sequences), counts


def random_parts(rng, size, parts):
  """Returns range(size) split at random positions; a part may be empty."""
  positions = np.sort(rng.integers(0, size + 1, parts - 1))
  return np.split(np.arange(size), positions)


def test_average_of_two_sequences_by_hand():
  # The totals are 2 and 9 over 1 and 3 tokens, with the mean 11 / 4. The
  # deviations are 2 - 2.75 and 9 - 8.25, with the sum of squares 1.125. The
  # variance is 2 / (2 - 1) * 1.125 / 4^2.
  average = metrics.Average.from_sums(np.array([2.0, 9.0]), np.array([1, 3]))
  assert average.mean == 2.75
  np.testing.assert_allclose(average.stderr, np.sqrt(2 * 1.125 / 16))


def test_average_of_equal_counts_has_the_textbook_stderr():
  values = np.random.default_rng(0).normal(3, 1, 50)
  average = metrics.Average.from_sums(values * 7, np.full(50, 7))
  np.testing.assert_allclose(average.mean, values.mean())
  np.testing.assert_allclose(
      average.stderr, values.std(ddof=1) / np.sqrt(50), rtol=1e-9
  )


def test_stderr_is_the_spread_over_replications():
  replications = [make_sequences(seed, 60) for seed in range(2000)]
  averages = [metrics.Average.from_sums(t, n) for t, n in replications]
  spread = np.std([a.mean for a in averages])
  typical = np.sqrt(np.mean([a.stderr**2 for a in averages]))
  np.testing.assert_allclose(typical, spread, rtol=0.05)


def test_stderr_agrees_with_a_bootstrap_over_sequences():
  totals, counts = make_sequences(3, 200)
  rng = np.random.default_rng(0)
  picks = rng.integers(0, 200, (4000, 200))
  resampled = totals[picks].sum(1) / counts[picks].sum(1)
  stderr = metrics.Average.from_sums(totals, counts).stderr
  np.testing.assert_allclose(stderr, resampled.std(), rtol=0.06)


def test_tokens_treated_as_independent_would_understate_the_error():
  # All tokens of a sequence have the same value.
  rng = np.random.default_rng(0)
  levels, counts = rng.normal(0, 1, 100), np.full(100, 25)
  average = metrics.Average.from_sums(levels * counts, counts)
  by_token = np.std(np.repeat(levels, 25)) / np.sqrt(2500)
  np.testing.assert_allclose(average.stderr / by_token, 5, rtol=0.02)


def test_average_merges_over_any_split():
  totals, counts = make_sequences(1)
  whole = metrics.Average.from_sums(totals, counts)
  rng = np.random.default_rng(2)
  for parts in (2, 3, 9):
    merged = None
    for part in random_parts(rng, len(counts), parts):
      record = metrics.Average.from_sums(totals[part], counts[part])
      merged = record if merged is None else merged.merge(record)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.stderr, whole.stderr, rtol=1e-9)


def test_sequences_without_tokens_change_nothing():
  totals, counts = make_sequences(1)
  padded = metrics.Average.from_sums(
      np.append(totals, [0.0, 0.0]), np.append(counts, [0, 0])
  )
  whole = metrics.Average.from_sums(totals, counts)
  assert padded.stderr == whole.stderr and padded.mean == whole.mean


def test_stderr_of_one_sequence_is_undefined():
  average = metrics.Average.from_sums(np.array([3.0]), np.array([2]))
  assert average.mean == 1.5 and np.isnan(average.stderr)


sum_rows = jax.jit(metrics.ShiftedSums.from_batch)


def make_moments(x, keep=None, shift=None):
  keep = np.ones(len(x), bool) if keep is None else keep
  shift = np.zeros(x.shape[1], np.float32) if shift is None else shift
  sums = sum_rows(x, keep, shift)
  return metrics.Moments.from_sums(jax.device_get(sums), shift)


def make_rows(seed=0, count=300, model=5, offset=0.0):
  rng = np.random.default_rng(seed)
  mix = rng.normal(size=(model, model))
  return (rng.normal(size=(count, model)) @ mix + offset).astype(np.float32)


def test_moments_by_hand():
  # The rows (0, 2) and (2, 6) have the mean (1, 4) and deviations of -+(1, 2).
  moments = make_moments(np.array([[0, 2], [2, 6]], np.float32))
  np.testing.assert_allclose(moments.mean, [1, 4])
  np.testing.assert_allclose(moments.scatter, [[2, 4], [4, 8]])
  assert moments.sum_of_squares == 10


def test_moments_equal_numpy_covariance_over_any_split():
  x = make_rows(offset=3.0)
  rng = np.random.default_rng(1)
  for parts in (1, 3):
    merged = None
    for part in random_parts(rng, len(x), parts):
      record = make_moments(x[part], shift=x[0])
      merged = record if merged is None else merged.merge(record)
    np.testing.assert_allclose(merged.mean, x.mean(0, np.float64), rtol=1e-5)
    np.testing.assert_allclose(
        merged.scatter / (len(x) - 1), np.cov(x.T), rtol=1e-4, atol=1e-5
    )


def test_a_shift_near_the_mean_keeps_a_far_off_variance():
  x = make_rows(offset=1000.0)
  true = np.cov(x.T.astype(np.float64)).trace() * (len(x) - 1)
  near = make_moments(x, shift=x[0])
  np.testing.assert_allclose(near.sum_of_squares, true, rtol=1e-5)


def test_masked_rows_do_not_count_even_if_nan():
  x = make_rows()
  keep = np.arange(len(x)) % 3 > 0
  dirty = np.where(keep[:, None], x, np.nan)
  kept, alone = make_moments(dirty, keep), make_moments(x[keep])
  assert kept.count == alone.count == keep.sum()
  np.testing.assert_allclose(kept.scatter, alone.scatter, rtol=1e-4, atol=1e-3)


def test_scatter_about_another_center():
  x = make_rows()
  center = np.arange(5.0)
  rows = x.astype(np.float64) - center
  np.testing.assert_allclose(
      make_moments(x).about(center), rows.T @ rows, rtol=1e-4, atol=1e-2
  )


def test_counters_do_not_stop_at_two_to_the_24():
  total = {'count': np.float32(2**24), 'hits': np.int32(2**31 - 1)}
  increment = {'count': np.float32(1), 'hits': np.int32(1)}
  for _ in range(3):
    total = metrics.add(total, increment)
  assert total['count'] == 2**24 + 3 and total['hits'] == 2**31 + 2
