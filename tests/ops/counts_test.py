"""Sums of counts beyond int32, against Python's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.ops import active_pairs, counts

_RNG = np.random.default_rng(0)
# Counts by row or by latent, of batches that are too large for a test.
_COUNTS = {
    'half of 4096 rows of 2^20': np.full(4096, 2**19),
    'all of 4096 rows of 2^20': np.full(4096, 2**20),
    'all but one': np.r_[np.full(4095, 2**20), 2**20 - 1],
    'just 2^31': np.full(2048, 2**20),
    'random rows': _RNG.integers(0, 2**20, 32_768),
    'random latents': _RNG.integers(0, 4096, (64, 2**14)),
    'one row': np.array([2**31 - 1]),
    'few': np.array([[3, 0], [2, 1]]),
    'none': np.zeros(7, np.int64),
}


@pytest.mark.parametrize('name', _COUNTS)
def test_at_least_agrees_with_integers_of_any_size(name):
  numbers = jnp.asarray(_COUNTS[name], jnp.int32)
  total = int(_COUNTS[name].sum())
  at_least = jax.jit(counts.at_least)
  ks = {0, 1, 131_072, 2**31 - 1, total - 1, total, total + 1}
  for k in sorted(k for k in ks if 0 <= k < 2**31):
    assert bool(at_least(numbers, jnp.int32(k))) == (total >= k), k


@pytest.mark.parametrize('name', _COUNTS)
def test_totals_are_those_of_integers_rounded_once(name):
  actual = jax.jit(counts.total)(jnp.asarray(_COUNTS[name], jnp.int32))
  assert float(actual) == np.float32(_COUNTS[name].sum())


def test_a_step_reports_the_l0_of_a_dense_batch_of_a_wide_sae():
  # 2^20 latents are active on all of 4096 rows, which makes 2^32 pairs.
  rows, latents = 4096, 2**20

  @jax.jit
  def l0(fired):
    zeros, empty = jnp.zeros(latents), jnp.zeros((rows, 1))
    batch = active_pairs.Batch(
        pre_acts=jnp.zeros((rows, latents)),  # Unused, so never allocated.
        inputs=empty,
        targets=empty,
        keep=jnp.ones(rows, bool),
        threshold=zeros,
        b_dec=jnp.zeros(1),
        coefficient=jnp.float32(0),
        target_l0=jnp.float32(1),
    )
    vectors = active_pairs.no_vectors(latents)._replace(fired=fired)
    errors = active_pairs.ReconstructionErrors(empty, jnp.float32(0))
    settings = active_pairs.Settings(0.1, False, False)
    return active_pairs.summarise(batch, vectors, errors, settings=settings).l0

  assert float(l0(jnp.full(latents, rows, jnp.int32))) == latents
