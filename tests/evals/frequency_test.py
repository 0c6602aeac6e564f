"""L0, firing frequencies, dead and dense shares."""

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.evals import frequency

# One row per token, one column per latent.
LATENTS = np.array(
    [
        [1.0, 0.0, 2.0, 0.0],
        [3.0, 0.0, 0.0, 0.0],
        [1.0, 0.5, 0.0, 0.0],
        [2.0, 0.0, 0.0, 0.0],
        [9.0, 9.0, 9.0, 9.0],  # Not kept.
    ],
    np.float32,
)
KEEP = np.array([True, True, True, True, False])


def count(latents, keep):
  return jax.jit(frequency.Firing.from_batch)(
      jnp.asarray(latents), jnp.asarray(keep)
  )


def test_values_by_hand():
  firing = count(LATENTS, KEEP)
  np.testing.assert_array_equal(firing.firing_frequency, [1, 0.25, 0.25, 0])
  results = firing.compute(dense_share=0.25)
  assert results['l0'] == 6 / 4
  assert results['dead_share'] == 1 / 4
  # 0.25 is not more than 0.25.
  assert results['dense_share'] == 1 / 4


def test_merged_counts_equal_the_whole_for_any_leading_axes():
  rng = np.random.default_rng(0)
  latents = np.where(rng.random((4, 6, 10)) < 0.3, 1.0, 0.0)
  latents, keep = latents.astype(np.float32), rng.random((4, 6)) < 0.8
  whole = count(latents, keep)
  by_row = [count(latents[i], keep[i]) for i in range(4)]
  merged = by_row[0].merge(by_row[1]).merge(by_row[2].merge(by_row[3]))
  np.testing.assert_array_equal(merged.fired, whole.fired)
  assert merged.tokens == whole.tokens == keep.sum()
  np.testing.assert_allclose(
      merged.compute(0.1)['l0'], latents[keep].sum() / keep.sum()
  )


def test_counts_exceed_the_range_of_float32_and_int32():
  big = frequency.Firing(np.int32(2**30), np.array([2**30, 3], np.int32))
  merged = big
  for _ in range(7):
    merged = merged.merge(big)
  small = frequency.Firing(np.int32(1), np.array([1, 0], np.int32))
  merged = merged.merge(small)
  assert merged.tokens == 2**33 + 1
  np.testing.assert_array_equal(merged.fired, [2**33 + 1, 24])
