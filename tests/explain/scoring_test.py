"""Scores equal those computed by hand, and random answers score as chance."""

import numpy as np
import pytest

from jumprelu.explain import scoring


def test_balanced_accuracy_is_the_mean_of_both_classes():
  # Three of four firing windows and one of two silent ones are right.
  score = scoring.balanced_accuracy([1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1])
  assert score.score == pytest.approx((3 / 4 + 1 / 2) / 2)
  assert (score.count, score.unparsable) == (6, 0)


def test_a_constant_answer_scores_one_half_for_any_sizes():
  for answer in (0, 1):
    score = scoring.balanced_accuracy([1] * 4 + [0] * 10, [answer] * 14)
    assert score.score == 0.5


def test_intervals_of_proportions_are_those_of_wilson():
  # 8 of 10: (0.8 + 0.192 -+ 1.96 sqrt(0.016 + 0.0096)) / 1.384.
  low, high = scoring.wilson(8, 10)
  assert low == pytest.approx(0.4902, abs=2e-4)
  assert high == pytest.approx(0.9433, abs=2e-4)
  score = scoring.proportion([1] * 8 + [0] * 2)
  assert score == (0.8, low, high, 10, 0)


def test_the_interval_of_balanced_accuracy_combines_both_classes():
  low, high = scoring.wilson(8, 10)
  score = scoring.balanced_accuracy(
      [1] * 10 + [0] * 10, ([1] * 8 + [0] * 2) * 2
  )
  other_low, other_high = scoring.wilson(2, 10)
  below = np.hypot(0.8 - low, 0.2 - other_low) / 2
  above = np.hypot(high - 0.8, other_high - 0.2) / 2
  assert score.low == pytest.approx(0.5 - below)
  assert score.high == pytest.approx(0.5 + above)


def test_perfect_answers_have_an_interval_of_positive_width():
  score = scoring.balanced_accuracy([1] * 5 + [0] * 5, [1] * 5 + [0] * 5)
  assert score.score == score.high == 1 and 0.6 < score.low < 0.8


def test_unparsable_answers_are_counted_and_left_out():
  score = scoring.balanced_accuracy([1, 1, 0, 0], [1, None, 0, None])
  assert (score.score, score.count, score.unparsable) == (1, 2, 2)
  score = scoring.balanced_accuracy([1, 0], [None, 0])
  assert (score.score, score.count, score.unparsable) == (None, 1, 1)
  score = scoring.proportion([1, None, 0])
  assert (score.score, score.count, score.unparsable) == (0.5, 2, 1)
  assert scoring.proportion([None]) == (None, None, None, 0, 1)
  score = scoring.correlation([np.arange(3.0)], [None], seed=0)
  assert score == (None, None, None, 0, 1)


def test_correlation_is_over_the_tokens_of_all_windows():
  truths = [np.array([0.0, 1, 2]), np.array([3.0, 0])]
  answers = [np.array([1.0, 1, 3]), np.array([2.0, 0])]
  expected = np.corrcoef(np.concatenate(truths), np.concatenate(answers))[0, 1]
  score = scoring.correlation(truths, answers, seed=0)
  assert score.score == pytest.approx(expected)
  assert score.low <= score.score <= score.high
  assert score == scoring.correlation(truths, answers, seed=0)


def test_constant_predictions_correlate_with_nothing():
  truths = [np.array([0.0, 1, 2])]
  assert scoring.correlation(truths, [np.ones(3)], seed=0).score == 0
  assert scoring.correlation([np.ones(3)], truths, seed=0).score is None


def test_answers_at_random_score_as_chance_within_the_interval():
  rng = np.random.default_rng(0)
  covered, scores = 0, []
  for _ in range(400):
    truths = rng.integers(0, 2, 40).tolist()
    score = scoring.balanced_accuracy(truths, rng.integers(0, 2, 40).tolist())
    covered += score.low <= 0.5 <= score.high
    scores.append(score.score)
  assert abs(np.mean(scores) - 0.5) < 3 * np.std(scores) / 20
  assert 0.92 <= covered / 400 <= 0.99
