"""FVU and gamma: pooled, centred, independent of scale and batch size."""

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.evals import fvu

sum_rows = jax.jit(fvu.Reconstruction.from_batch)
sum_moments = jax.jit(metrics.ShiftedSums.from_batch)


def evaluate(x, xhat, keep=None, batch=None):
  """Returns FVU and gamma of rows, in batches of `batch`."""
  keep = np.ones(len(x), bool) if keep is None else keep
  batch = batch or len(x)
  shift = jnp.asarray(x[:batch][keep[:batch]].mean(0))
  record = moments = None
  for start in range(0, len(x), batch):
    part = slice(start, start + batch)
    sums = sum_rows(x[part], xhat[part], keep[part])
    record = sums if record is None else record.merge(sums)
    part_moments = metrics.Moments.from_sums(
        sum_moments(x[part], keep[part], shift), shift
    )
    moments = part_moments if moments is None else moments.merge(part_moments)
  return record.compute(moments)


def make_rows(seed=0, count=240, model=6):
  """Returns rows whose statistics drift, and noisy copies."""
  rng = np.random.default_rng(seed)
  drift = np.linspace(-2, 2, count)[:, None]
  x = rng.normal(size=(count, model)) * np.arange(1, model + 1) + drift
  xhat = 0.9 * x + 0.3 * rng.normal(size=x.shape)
  return x.astype(np.float32), xhat.astype(np.float32)


def test_values_by_hand():
  x = np.array([[0, 0], [4, 0]], np.float32)
  xhat = np.array([[0, 1], [3, 0]], np.float32)
  # Squared errors 1 and 1; squared distances from the mean (2, 0) 4 and 4;
  # gamma (1 + 9) / 12.
  results = evaluate(x, xhat)
  np.testing.assert_allclose(results['fvu'], 2 / 8)
  np.testing.assert_allclose(results['gamma'], 10 / 12)


def test_predicting_the_mean_gives_an_fvu_of_one():
  x, _ = make_rows()
  # Far from the origin, where FVU with a variance about zero would be near 0.
  x = x + 50
  results = evaluate(x, np.broadcast_to(x.mean(0), x.shape).copy())
  np.testing.assert_allclose(results['fvu'], 1.0, rtol=1e-5)


def test_peer_defect_9_explained_variance_is_about_the_mean_and_at_most_one():
  """Peers used the variance about zero, and explained variance exceeded 1."""
  x, xhat = make_rows()
  for shift in (0.0, 10.0, 100.0):
    for scale in (0.1, 1.0, 100.0):
      results = evaluate(scale * (x + shift), scale * (xhat + shift))
      explained = 1 - results['fvu']
      true = 1 - np.square(x - xhat).sum() / np.square(x - x.mean(0)).sum()
      np.testing.assert_allclose(explained, true, rtol=1e-4)
      assert explained <= 1


def test_peer_defect_10_errors_do_not_depend_on_the_batch_size():
  """Peers divided an error by the number of tokens in a batch."""
  x, xhat = make_rows()
  whole = evaluate(x, xhat)
  for batch in (10, 60, 239):
    split = evaluate(x, xhat, batch=batch)
    np.testing.assert_allclose(split['fvu'], whole['fvu'], rtol=1e-5)
    np.testing.assert_allclose(split['gamma'], whole['gamma'], rtol=1e-5)


def test_peer_defect_11_a_forgotten_scale_shows_in_fvu_and_gamma():
  """Peers compared scaled with unscaled activations."""
  x, xhat = make_rows()
  honest = evaluate(5 * x, 5 * xhat)
  forgotten = evaluate(5 * x, xhat)
  np.testing.assert_allclose(honest['fvu'], evaluate(x, xhat)['fvu'], rtol=1e-5)
  assert forgotten['fvu'] > 0.5 > honest['fvu']
  # The ratio of the gammas is the forgotten factor.
  np.testing.assert_allclose(forgotten['gamma'] * 5, honest['gamma'], rtol=1e-5)


def test_gamma_is_the_factor_of_a_scaled_copy():
  x, _ = make_rows()
  for factor in (0.7, 1.0, 1.3):
    np.testing.assert_allclose(
        evaluate(x, factor * x)['gamma'], factor, rtol=1e-5
    )


def test_rows_that_are_not_kept_do_not_matter_even_if_nan():
  x, xhat = make_rows()
  keep = np.arange(len(x)) % 4 > 0
  kept = evaluate(x[keep], xhat[keep])
  dirty = np.where(keep[:, None], x, np.inf)
  results = evaluate(dirty, np.where(keep[:, None], xhat, np.nan), keep)
  np.testing.assert_allclose(results['fvu'], kept['fvu'], rtol=1e-5)


def test_fvu_without_variance_is_nan():
  x = np.ones((4, 2), np.float32)
  assert np.isnan(evaluate(x, 0 * x)['fvu'])
