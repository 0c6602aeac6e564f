"""Scores of predictions, with intervals of 95%.

A prediction is None if an answer could not be read. Such predictions are
counted, and left out of the score.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

_Z = 1.959964
_RESAMPLED = 200


class Score(NamedTuple):
  """A score with its interval.

  Attributes:
    score: The score; None without enough answers.
    low: The lower end of the interval of 95%.
    high: The upper end.
    count: The answers that the score is computed from.
    unparsable: The answers that could not be read.
  """

  score: float | None
  low: float | None
  high: float | None
  count: int
  unparsable: int


def _none(count: int, unparsable: int) -> Score:
  return Score(None, None, None, count, unparsable)


def wilson(right: int, count: int) -> tuple[float, float]:
  """Returns Wilson's interval of a proportion, which is exact enough for 10."""
  share, z = right / count, _Z**2 / count
  centre = (share + z / 2) / (1 + z)
  half = math.sqrt(z * share * (1 - share) + z**2 / 4) / (1 + z)
  return max(0.0, centre - half), min(1.0, centre + half)


def proportion(correct: Sequence[int | None]) -> Score:
  """Returns the share of correct answers, such as those to intruder questions.

  Args:
    correct: 1 for a correct answer, 0 for a wrong one; None if unparsable.
  """
  read = [x for x in correct if x is not None]
  unparsable = len(correct) - len(read)
  if not read:
    return _none(0, unparsable)
  low, high = wilson(sum(read), len(read))
  return Score(sum(read) / len(read), low, high, len(read), unparsable)


def balanced_accuracy(
    truths: Sequence[int], predictions: Sequence[int | None]
) -> Score:
  """Returns the mean of the shares of correct answers of the two classes.

  It is 0.5 for a judge that ignores the question, whatever the sizes of the
  classes. The interval combines those of the two shares (Newcombe's method).

  Args:
    truths: 1 where the latent fires, else 0.
    predictions: The judge's answers; None if unparsable.
  """
  pairs = list(zip(truths, predictions, strict=True))
  read = [(t, p) for t, p in pairs if p is not None]
  unparsable = len(pairs) - len(read)
  classes = [[p == t for t, p in read if t == side] for side in (0, 1)]
  if not all(classes):
    return _none(len(read), unparsable)
  shares = [sum(part) / len(part) for part in classes]
  ends = [wilson(sum(part), len(part)) for part in classes]
  zipped = list(zip(shares, ends, strict=True))
  mean = sum(shares) / 2
  low = mean - math.hypot(*(s - end[0] for s, end in zipped)) / 2
  high = mean + math.hypot(*(end[1] - s for s, end in zipped)) / 2
  return Score(mean, max(0.0, low), min(1.0, high), len(read), unparsable)


def correlation(
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray | None],
    *,
    seed: int,
) -> Score:
  """Returns Pearson's correlation over the tokens of all windows.

  The interval is from a bootstrap over windows. A constant prediction has a
  correlation of 0.

  Args:
    truths: The activations of each window.
    predictions: The predicted activations of each; None if unparsable.
    seed: The seed of the bootstrap.
  """
  pairs = [
      (np.asarray(t, float), np.asarray(p, float))
      for t, p in zip(truths, predictions, strict=True)
      if p is not None
  ]
  unparsable = len(truths) - len(pairs)
  if not pairs:
    return _none(0, unparsable)
  # Count and sums of x, y, x x, y y and x y, which the windows add up to.
  sums = np.array(
      [[len(t), t.sum(), p.sum(), t @ t, p @ p, t @ p] for t, p in pairs]
  )
  score = float(_pearson(sums.sum(axis=0)))
  if not np.isfinite(score):
    return _none(len(pairs), unparsable)
  draws = np.random.default_rng(seed).integers(
      len(pairs), size=(_RESAMPLED, len(pairs))
  )
  resampled = _pearson(sums[draws].sum(axis=1).T)
  resampled = resampled[np.isfinite(resampled)]
  low, high = np.quantile(np.append(resampled, score), [0.025, 0.975])
  return Score(score, float(low), float(high), len(pairs), unparsable)


def _pearson(sums: np.ndarray) -> np.ndarray:
  """Returns correlations; NaN if the first variable is constant."""
  n, x, y, xx, yy, xy = sums
  var_x, var_y = n * xx - x * x, n * yy - y * y
  flat = var_y <= 1e-9 * np.maximum(n * yy, 1e-30)
  with np.errstate(invalid='ignore', divide='ignore'):
    r = (n * xy - x * y) / np.sqrt(var_x * np.where(flat, 1, var_y))
  r = np.where(flat, 0.0, r)
  return np.where(var_x <= 1e-9 * np.maximum(n * xx, 1e-30), np.nan, r)
