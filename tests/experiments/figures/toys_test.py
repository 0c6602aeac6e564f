"""The toys: closed forms against brute force and against training."""

import numpy as np
import pytest

from experiments import threshold_gradients
from experiments.figures import gated_shrinkage, gated_toy_mixture, mixture


@pytest.mark.parametrize('coefficient', [0.25, 1.0, 1.9])
def test_the_closed_form_has_the_least_l1_loss(coefficient):
  share = 0.1
  latent = np.linspace(0, 1, 1001)[:, None]
  bias = np.linspace(0, 0.2, 401)[None, :]
  loss = (
      share * (latent + bias - 1) ** 2
      + (1 - share) * bias**2
      + coefficient * share * latent
  )
  i, j = np.unravel_index(loss.argmin(), loss.shape)
  best = latent[i, 0] + bias[0, j]
  assert abs(gated_shrinkage.closed_form(coefficient) - best) < 2e-3


def test_the_mixture_s_best_guess_is_the_feature_s_mean():
  noise = 0.3
  rng = np.random.default_rng(0)
  x, feature = mixture.draw(rng, np.array([noise]), (400_000,))
  absent, present, best = mixture.densities(x[0], noise)
  # The estimator's errors do not correlate with the observation.
  errors = feature[0] - best
  assert abs(errors.mean()) < 2e-3
  assert abs((errors * x[0]).mean()) < 2e-3
  assert abs((errors * (x[0] > 0.6)).mean()) < 2e-3
  fvu = np.square(errors).mean() / feature[0].var()
  assert abs(fvu - mixture.best_fvu(noise)) < 5e-3
  near = np.abs(x[0] - 0.5) < 0.05
  density = near.mean() / 0.1
  middle = np.array([0.5])
  absent, present, _ = mixture.densities(middle, noise)
  assert abs(density - (absent + present)[0]) < 0.02


def test_pseudo_gradients_estimate_the_derivative_of_the_mean_loss():
  decoder, rows = threshold_gradients.draw(64, 512)
  thresholds = (0.3, 0.6)
  exact = threshold_gradients.differences(decoder, rows, thresholds)
  estimates = threshold_gradients.gradients(decoder, rows, thresholds, 0.03)
  assert estimates.shape == exact.shape == (2, 64)
  stderr = np.hypot(estimates.std(1), exact.std(1)) / 8
  distance = np.abs(estimates.mean(1) - exact.mean(1))
  assert (distance < 3 * stderr).all()
  # The derivatives differ clearly from 0 and from each other.
  assert (np.abs(exact.mean(1)) > 4 * stderr).all()
  assert exact.mean(1)[0] < 0 < exact.mean(1)[1]


def test_pseudo_derivatives_are_those_of_the_paper():
  z = np.array([0.0, 0.3, 0.45, 0.55, 0.7, 1.0], np.float32)
  functions = threshold_gradients.functions(z, 0.5, 0.2)
  np.testing.assert_allclose(functions['step'], [0, 0, 0, 1, 1, 1])
  np.testing.assert_allclose(functions['jumprelu'], z * (z > 0.5))
  np.testing.assert_allclose(functions['step_slope'], [0, 0, -5, -5, 0, 0])
  np.testing.assert_allclose(
      functions['jumprelu_slope'], [0, 0, -2.5, -2.5, 0, 0]
  )


@pytest.mark.slow
def test_trained_toys_reach_their_closed_forms(monkeypatch):
  monkeypatch.setattr(gated_shrinkage, '_LAMBDAS', (0.5, 1.0))
  for row in gated_shrinkage.table({}):
    expected = row['closed_form_l1'] if row['variant'] == 'relu' else 1.0
    assert abs(row['reconstruction'] - expected) < 5e-3, row
  monkeypatch.setattr(gated_toy_mixture, '_NOISES', (0.1, 0.2))
  rows = gated_toy_mixture.table({})
  for noise in (0.1, 0.2):
    relu, jumprelu, best = (
        np.mean(
            [
                row['fvu']
                for row in rows
                if row['panel'] == 'error'
                and (row['variant'], row['noise']) == (variant, noise)
            ]
        )
        for variant in ('relu', 'jumprelu', 'best')
    )
    assert 0.9 * best < jumprelu < 0.85 * relu
