"""Delta loss, loss recovered, and their standard error."""

import jax.numpy as jnp
import numpy as np

from jumprelu.evals import delta_loss

CLEAN = np.array([[1.0, 2.0, 7.0], [3.0, 9.0, 9.0]], np.float32)
# The last position of the first sequence and the last two of the second are
# not scored.
SCORED = np.array([[True, True, False], [True, False, False]])


def sums(losses, clean=None):
  return delta_loss.SequenceLosses.from_batch(
      jnp.asarray(losses),
      jnp.asarray(SCORED),
      clean=None if clean is None else jnp.asarray(clean),
  ).average()


def make_record(losses, zero, mean):
  return delta_loss.Downstream(
      sums(CLEAN), *(sums(x, CLEAN) for x in (losses, zero, mean))
  )


def test_values_by_hand():
  # Clean mean (1 + 2 + 3) / 3. Spliced: +0.5, +0.1, +0.3 at scored positions.
  spliced = CLEAN + np.array([[0.5, 0.1, 99], [0.3, 99, 99]], np.float32)
  results = make_record(spliced, CLEAN + 4, CLEAN + 2).compute()
  np.testing.assert_allclose(results['loss_clean'], 2.0, rtol=1e-6)
  np.testing.assert_allclose(results['delta_loss'], 0.3, rtol=1e-6)
  np.testing.assert_allclose(results['loss_spliced'], 2.3, rtol=1e-6)
  np.testing.assert_allclose(results['loss_zero_ablation'], 6.0, rtol=1e-6)
  np.testing.assert_allclose(results['loss_mean_ablation'], 4.0, rtol=1e-6)
  np.testing.assert_allclose(results['loss_recovered'], 1 - 0.3 / 4, rtol=1e-6)
  np.testing.assert_allclose(
      results['loss_recovered_mean'], 1 - 0.3 / 2, rtol=1e-6
  )
  assert results['tokens_delta_loss'] == 3
  # Both sequences (0.6 over 2 tokens, 0.3 over 1) have the mean: no spread.
  np.testing.assert_allclose(results['delta_loss_stderr'], 0, atol=1e-6)


def test_loss_recovered_is_one_for_clean_and_zero_for_the_ablation():
  assert (
      make_record(CLEAN, CLEAN + 4, CLEAN + 2).compute()['loss_recovered'] == 1
  )
  results = make_record(CLEAN + 4, CLEAN + 4, CLEAN + 2).compute()
  assert results['loss_recovered'] == 0 and results['loss_recovered_mean'] == -1


def test_loss_recovered_from_a_harmless_ablation_is_undefined():
  results = make_record(CLEAN + 1, CLEAN, CLEAN).compute()
  assert np.isnan(results['loss_recovered'])


def test_merged_batches_equal_the_whole():
  rng = np.random.default_rng(0)
  clean = rng.gamma(2, 1, (12, 9)).astype(np.float32)
  losses = clean + rng.normal(0.1, 0.2, clean.shape).astype(np.float32)
  scored = rng.random(clean.shape) < 0.7

  def record(part):
    def average(x, clean=None):
      return delta_loss.SequenceLosses.from_batch(
          jnp.asarray(x[part]),
          jnp.asarray(scored[part]),
          clean=None if clean is None else jnp.asarray(clean[part]),
      ).average()

    return delta_loss.Downstream(
        average(clean),
        average(losses, clean),
        average(clean + 2, clean),
        average(clean + 1, clean),
    )

  whole = record(slice(None)).compute()
  merged = record(slice(0, 5)).merge(record(slice(5, 6)))
  merged = merged.merge(record(slice(6, 12))).compute()
  for key, value in whole.items():
    np.testing.assert_allclose(merged[key], value, rtol=1e-6, err_msg=key)
  np.testing.assert_allclose(
      whole['delta_loss'], (losses - clean)[scored].mean(), rtol=1e-5
  )


def test_small_differences_of_large_sums_survive():
  # The float32 sum of losses of 100 nats over 1e5 tokens has an error of about
  # 1 nat.
  clean = np.full((1, 2**17), 100.0, np.float32)
  scored = np.ones_like(clean, bool)
  delta = delta_loss.SequenceLosses.from_batch(
      jnp.asarray(clean + 2.0**-10),
      jnp.asarray(scored),
      clean=jnp.asarray(clean),
  ).average()
  np.testing.assert_allclose(delta.mean, 2.0**-10, rtol=1e-6)
