"""FVU of the PCA baseline against explicit projections."""

import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.evals import pca


def make_rows(seed, count=400, model=6):
  rng = np.random.default_rng(7)
  mix = rng.normal(size=(model, model)) * np.arange(1, model + 1)
  rows = np.random.default_rng(seed).normal(size=(count, model)) @ mix + 3
  return rows.astype(np.float32)


def moments_of(x):
  shift = x[0]
  sums = metrics.ShiftedSums.from_batch(
      jnp.asarray(x), jnp.ones(len(x), bool), jnp.asarray(shift)
  )
  return metrics.Moments.from_sums(sums, shift)


def test_fvu_equals_explicit_projection_at_every_rank():
  train, held_out = make_rows(0), make_rows(1, 150)
  curve = pca.fvu(pca.fit(moments_of(train)), moments_of(held_out))
  mean = train.mean(0, np.float64)
  _, _, directions = np.linalg.svd(train - mean, full_matrices=False)
  x = held_out.astype(np.float64)
  for rank in range(7):
    basis = directions[:rank]
    residual = (x - mean) - (x - mean) @ basis.T @ basis
    expected = np.square(residual).sum() / np.square(x - x.mean(0)).sum()
    np.testing.assert_allclose(curve[rank], expected, rtol=1e-4, atol=1e-6)


def test_fvu_falls_with_rank_to_zero():
  curve = pca.fvu(pca.fit(moments_of(make_rows(0))), moments_of(make_rows(1)))
  assert np.all(np.diff(curve) <= 0)
  # Rank 0 predicts the training mean, which is close to the held-out mean.
  assert 1 < curve[0] < 1.1
  np.testing.assert_allclose(curve[-1], 0, atol=1e-9)


def test_rank_is_l0_rounded_half_up_and_at_most_the_width():
  curve = np.array([1.0, 0.5, 0.25, 0.125])
  assert pca.fvu_at(curve, 0.49) == 1.0
  assert pca.fvu_at(curve, 1.5) == 0.25
  assert pca.fvu_at(curve, 900.0) == 0.125
  assert np.isnan(pca.fvu_at(curve, float('nan')))
