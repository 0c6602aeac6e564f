"""Probes: the optimum, class weights, and the pursuit of latents."""

import numpy as np
from scipy import special

from jumprelu.evals.measures import absorption, probe


def examples(count=200, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(count, 3)) * [1, 10, 0.1] + [0, 5, -2]
  labels = x @ [1, 0.1, -3] + rng.normal(size=count) > 8
  return x, labels


def test_the_fit_is_the_optimum_of_the_documented_objective():
  x, labels = examples()
  z = np.hstack([(x - x.mean(0)) / x.std(0), np.ones((len(x), 1))])
  costs = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
  penalty = np.diag([1, 1, 1, 0])
  w = np.zeros(4)
  for _ in range(50):  # Newton's method.
    p = special.expit(z @ w)
    slope = z.T @ (costs * (p - labels)) + penalty @ w
    w -= np.linalg.solve(z.T * (costs * p * (1 - p)) @ z + penalty, slope)
  fitted = probe.fit(x, labels)
  np.testing.assert_allclose(fitted.logits(x), z @ w, atol=1e-3)
  np.testing.assert_allclose(fitted.weights, w[:3] / x.std(0), rtol=1e-3)


def test_a_rare_class_is_detected_and_a_constant_feature_has_no_weight():
  rng = np.random.default_rng(1)
  labels = np.arange(2000) % 100 == 0
  x = np.stack([labels + rng.normal(size=2000) * 0.3, np.ones(2000)], 1)
  fitted = probe.fit(x, labels)
  guesses = fitted.logits(x) > 0
  assert guesses[labels].mean() > 0.8 and guesses[~labels].mean() < 0.1
  assert fitted.weights[1] == 0


def test_pursuit_selects_a_complement_and_not_a_copy():
  labels = np.arange(120) % 3 == 0
  first = labels & (np.arange(120) < 80)
  rest = labels & ~first
  noise = np.random.default_rng(0).random((120, 2)) * 0.1
  latents = np.column_stack([rest, first, first * 2.0, ~labels, noise])
  start = probe.pursue(latents, labels, np.zeros(120))
  assert start in (1, 2)
  fitted = probe.fit(latents[:, [start]], labels)
  assert probe.pursue(latents, labels, fitted.logits(latents[:, [start]])) == 0
  # The latents of both halves of a label are main latents; others are not.
  chosen, f1 = absorption.main_latents(latents, labels)
  assert sorted(chosen) == sorted([0, start]) and f1 == 1
  assert absorption.main_latents(latents[:, 3:4], labels)[0] == []
