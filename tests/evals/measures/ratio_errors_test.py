"""Ratios over groups, against `metrics.Average` and the jackknife."""

import numpy as np

from jumprelu import metrics
from jumprelu.evals.measures import probe, ratio_errors


def outcomes(documents=40, seed=0):
  """Returns outcomes of documents that differ in length and difficulty."""
  rng = np.random.default_rng(seed)
  rows = []
  for _ in range(documents):
    rates = rng.dirichlet([6, 2, 2, 10])
    rows.append(rng.multinomial(rng.integers(5, 60), rates))
  return np.asarray(rows, float)


def test_a_single_ratio_equals_an_average_with_its_error():
  rows = outcomes()
  hits, tokens = rows[:, 0] + rows[:, 3], rows.sum(1)
  average = metrics.Average.from_sums(hits, tokens.astype(int))
  value, error = ratio_errors.Counts.from_groups(rows).estimate(*probe.ACCURACY)
  np.testing.assert_allclose(value, average.mean, rtol=1e-12)
  np.testing.assert_allclose(error, average.stderr, rtol=1e-9)


def test_scores_by_hand():
  counts = ratio_errors.Counts.from_groups(
      np.asarray([[3, 1, 0, 8], [1, 1, 2, 4.0]])
  )
  scores = {
      name: counts.estimate(*getattr(probe, name))[0]
      for name in ('ACCURACY', 'BALANCED_ACCURACY', 'F1', 'BASE_RATE')
  }
  assert scores == {
      'ACCURACY': 16 / 20,
      'BALANCED_ACCURACY': (4 / 6 + 12 / 14) / 2,
      'F1': 8 / 12,
      'BASE_RATE': 6 / 20,
  }


def test_standard_errors_of_scores_are_near_the_jackknife():
  rows = outcomes()
  for score in (probe.BALANCED_ACCURACY, probe.F1):
    _, error = ratio_errors.Counts.from_groups(rows).estimate(*score)
    without = [
        ratio_errors.Counts.from_groups(np.delete(rows, i, 0)).estimate(*score)[
            0
        ]
        for i in range(len(rows))
    ]
    jackknife = np.sqrt((len(rows) - 1) * np.var(without))
    np.testing.assert_allclose(error, jackknife, rtol=0.1)


def test_merged_halves_equal_the_whole_and_empty_groups_do_not_count():
  rows = outcomes()
  whole = ratio_errors.Counts.from_groups(rows)
  both = ratio_errors.Counts.from_groups(
      np.vstack([rows[:7], np.zeros((3, 4))])
  ).merge(ratio_errors.Counts.from_groups(rows[7:]))
  np.testing.assert_allclose(
      both.estimate(*probe.F1), whole.estimate(*probe.F1), rtol=1e-12
  )
  assert both.groups == len(rows)


def test_undefined_scores_and_errors_are_nan():
  counts = ratio_errors.Counts.from_groups(np.asarray([[0, 0, 0, 5.0]]))
  value, error = counts.estimate(*probe.ACCURACY)
  assert value == 1 and np.isnan(error)
  assert np.isnan(counts.estimate(*probe.F1)[0])
