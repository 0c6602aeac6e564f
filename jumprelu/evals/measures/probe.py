"""Probes: logistic regression, and which features a sparse one is given.

A probe minimises sum_i c_i loss_i + ||w||^2 / 2 on features of unit spread, the
losses of the rarer class weighing more so that both weigh the same (C = 1 and
balanced classes, as in SAEBench, arXiv 2503.09532), in float64.
"""

from typing import NamedTuple

import numpy as np

from jumprelu.array_typing import Bool, Float, Int, Num
from jumprelu.evals.measures import ratio_errors

# True and false positives, false and true negatives.
_ALL = (1, 1, 1, 1)
ACCURACY = (ratio_errors.Ratio((1, 0, 0, 1), _ALL),)
# The mean of the two classes' shares that are found.
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
    """Returns the log-odds of each example, both classes as likely before."""
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
  """Fits a probe; both classes must have examples."""
  from scipy import optimize, special

  features = np.asarray(features, np.float64)
  center, spread = features.mean(0), features.std(0)
  # What is constant tells nothing.
  spread = np.where(spread > 0, spread, np.inf)
  x, costs = (features - center) / spread, balance(labels)
  sign = np.where(labels, 1.0, -1.0)

  def objective(parameters):
    weights, bias = parameters[:-1], parameters[-1]
    margin = sign * (x @ weights + bias)
    slope = -costs * sign * special.expit(-margin)
    loss = costs @ np.logaddexp(0, -margin) + weights @ weights / 2
    return loss, np.append(x.T @ slope + weights, slope.sum())

  found = optimize.minimize(
      objective,
      np.zeros(x.shape[1] + 1),
      jac=True,
      method='L-BFGS-B',
      options={'maxiter': _ITERATIONS},
  )
  weights = found.x[:-1] / spread
  return Probe(weights, float(found.x[-1] - weights @ center))


def confusion(
    guesses: Bool[np.ndarray, ' examples'],
    labels: Bool[np.ndarray, ' examples'],
    documents: Int[np.ndarray, ' examples'],
) -> ratio_errors.Counts:
  """Returns the counts of the scores above, a group being a document."""
  outcomes = np.stack(
      [guesses & labels, guesses & ~labels, ~guesses & labels, ~guesses & ~labels],
      axis=1,
  )  # fmt: skip
  names, index = np.unique(documents, return_inverse=True)
  rows = np.zeros((len(names), 4))
  np.add.at(rows, index, outcomes)
  return ratio_errors.Counts.from_groups(rows)


def pursue(
    features: Num[np.ndarray, 'examples features'],
    labels: Bool[np.ndarray, ' examples'],
    logits: Float[np.ndarray, ' examples'],
) -> int | None:
  """Returns the feature that best explains what a probe's `logits` do not.

  By the slope of the loss in its weight, for a feature of unit spread; only
  features that speak for the label are looked at. None if there is none.
  """
  from scipy import special

  features = np.asarray(features, np.float64)
  rest = balance(labels) * (labels - special.expit(logits))
  spread = features.std(0)
  slopes = (features - features.mean(0)).T @ rest
  slopes = slopes / np.where(spread > 0, spread, np.inf)
  best = int(slopes.argmax())
  return best if slopes[best] > 0 else None
