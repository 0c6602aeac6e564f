"""Logistic regression probes, and the choice of features for sparse probes.

A probe minimises sum_i c_i loss_i + ||w||^2 / 2 in float64, on features scaled
to unit standard deviation. The costs c_i of the examples give both classes the
same total weight. This is scikit-learn's C = 1 with balanced classes, as in
SAEBench (arXiv 2503.09532).
"""

from typing import NamedTuple

import numpy as np

from jumprelu.array_typing import Bool, Float, Int, Num
from jumprelu.evals.measures import ratio_errors

# Scores are ratios of sums of four counts, in this order: true positives, false
# positives, false negatives, true negatives.
_ALL = (1, 1, 1, 1)
ACCURACY = (ratio_errors.Ratio((1, 0, 0, 1), _ALL),)
# The mean recall of the two classes.
BALANCED_ACCURACY = (
    ratio_errors.Ratio((1, 0, 0, 0), (1, 0, 1, 0), 0.5),
    ratio_errors.Ratio((0, 0, 0, 1), (0, 1, 0, 1), 0.5),
)
F1 = (ratio_errors.Ratio((2, 0, 0, 0), (2, 1, 1, 0)),)
BASE_RATE = (ratio_errors.Ratio((1, 0, 1, 0), _ALL),)

_ITERATIONS = 200


class Probe(NamedTuple):
  """A linear classifier: positive where features @ weights + bias > 0."""

  weights: Float[np.ndarray, ' features']
  bias: float

  def logits(
      self, features: Num[np.ndarray, 'examples features']
  ) -> Float[np.ndarray, ' examples']:
    """Returns the log-odds of each example, for equally likely classes."""
    return features @ self.weights + self.bias


def balance(
    labels: Bool[np.ndarray, ' examples'],
) -> Float[np.ndarray, ' examples']:
  """Returns weights of mean 1 that give both classes the same total."""
  share = labels.mean()
  return np.where(labels, 0.5 / share, 0.5 / (1 - share))


def fit(
    features: Num[np.ndarray, 'examples features'],
    labels: Bool[np.ndarray, ' examples'],
) -> Probe:
  """Returns a fitted probe; both classes must have examples."""
  from scipy import optimize, special

  features = np.asarray(features, np.float64)
  center, spread = features.mean(0), features.std(0)
  # Constant features get weight 0.
  spread = np.where(spread > 0, spread, np.inf)
  x, costs = (features - center) / spread, balance(labels)
  sign = np.where(labels, 1.0, -1.0)

  def objective(parameters):
    weights, bias = parameters[:-1], parameters[-1]
    margin = sign * (x @ weights + bias)
    slope = -costs * sign * special.expit(-margin)
    loss = costs @ np.logaddexp(0, -margin) + weights @ weights / 2
    return loss, np.append(x.T @ slope + weights, slope.sum())

  optimum = optimize.minimize(
      objective,
      np.zeros(x.shape[1] + 1),
      jac=True,
      method='L-BFGS-B',
      options={'maxiter': _ITERATIONS},
  )
  weights = optimum.x[:-1] / spread
  return Probe(weights, float(optimum.x[-1] - weights @ center))


def confusion(
    guesses: Bool[np.ndarray, ' examples'],
    labels: Bool[np.ndarray, ' examples'],
    documents: Int[np.ndarray, ' examples'],
) -> ratio_errors.Counts:
  """Returns the four counts of the scores above, with documents as groups."""
  outcomes = np.stack(
      [
          guesses & labels,
          guesses & ~labels,
          ~guesses & labels,
          ~guesses & ~labels,
      ],
      axis=1,
  )
  names, index = np.unique(documents, return_inverse=True)
  rows = np.zeros((len(names), 4))
  np.add.at(rows, index, outcomes)
  return ratio_errors.Counts.from_groups(rows)


def pursue(
    features: Num[np.ndarray, 'examples features'],
    labels: Bool[np.ndarray, ' examples'],
    logits: Float[np.ndarray, ' examples'],
) -> int | None:
  """Returns the feature that would reduce a probe's loss fastest, or None.

  The criterion is the slope of the loss in the weight of a feature scaled to
  unit standard deviation. Only positive weights are considered, so the result
  is None if no feature is evidence for the label beyond `logits`.
  """
  from scipy import special

  features = np.asarray(features, np.float64)
  rest = balance(labels) * (labels - special.expit(logits))
  spread = features.std(0)
  slopes = (features - features.mean(0)).T @ rest
  slopes = slopes / np.where(spread > 0, spread, np.inf)
  best = int(slopes.argmax())
  return best if slopes[best] > 0 else None
