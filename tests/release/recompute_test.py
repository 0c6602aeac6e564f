"""Test vectors may differ by rounding errors only."""

import jax
import numpy as np
import pytest

from jumprelu import saes
from jumprelu.release import recompute


def test_a_latent_within_rounding_of_its_threshold_may_be_on_or_off():
  params = {
      'W_enc': np.eye(2, dtype=np.float32),
      'b_enc': np.zeros(2, np.float32),
      'threshold': np.array([0.5, 0.5], np.float32),
  }
  x = np.array([[0.5000001, 0.7]], np.float32)
  for latents, wrong in [
      ([0.5000001, 0.7], [False, False]),
      ([0.0, 0.7], [False, False]),
      ([0.5000001, 0.0], [False, True]),
      ([0.5, 0.6999], [False, True]),
      ([0.3, 0.7], [True, False]),
  ]:
    np.testing.assert_array_equal(
        recompute.wrong_in_float64(params, x, np.array([latents], np.float32)),
        [wrong],
    )


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_latents_within_rounding_of_the_kth_may_be_exchanged(precision):
  sae = saes.make_sae(
      'topk',
      saes.topk.Config(k=(1.0,), pre_encoder_bias=False),
      d_in=3,
      d_out=3,
      width=3,
      transcoder=False,
  )
  params = {
      'W_enc': np.eye(3, dtype=np.float32),
      'b_enc': np.zeros(3, np.float32),
      'W_dec': np.eye(3, dtype=np.float32),
      'b_dec': np.zeros(3, np.float32),
      'k': np.float32(1),
  }
  x = np.array([[0.7000001, 0.7, 0.5]], np.float32)
  for latents, wrong in [
      ([0.7000001, 0, 0], [False, False, False]),
      ([0, 0.7, 0], [False, False, False]),
      ([0, 0, 0.5], [True, False, True]),
      ([0, 0.699, 0], [False, True, False]),
      ([0.7000001, 0.7, 0], [False, True, False]),
  ]:
    with jax.default_matmul_precision(precision):
      mask = recompute.wrong_latents(
          sae, params, x, latents=np.array([latents], np.float32)
      )
    np.testing.assert_array_equal(mask, [wrong])
