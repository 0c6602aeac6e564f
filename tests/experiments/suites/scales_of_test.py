"""Members measured with the activation scales of another suite."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.suites import results
from jumprelu import lm, saes
from jumprelu.training import load_run, suite


def _member(site, scales):
  sae = saes.make_sae(
      'jumprelu', saes.jumprelu.Config(), d_in=4, d_out=4, width=6
  )
  params = sae.init_params(jax.random.key(0), initial_threshold=0.3)
  params |= {'b_enc': params['b_enc'] + 0.1, 'b_dec': params['b_dec'] + 0.2}
  member = suite.Member(
      site=site,
      layer=2,
      width=6,
      variant='jumprelu',
      sparsity_coefficient=1e-3,
      target_l0=0.0,
      seed=0,
      learning_rate=1e-3,
      initial_threshold=0.3,
  )
  params = {name: np.asarray(value) for name, value in params.items()}
  reads = lm.make_reads(site, 2)
  return load_run.TrainedMember(member, sae, params, reads, *scales, {})


def test_scales_of_another_suite_compensate_for_larger_activations():
  members = [_member('resid_post', (2.0, 2.0)), _member('mlp_out', (1.0, 1.0))]
  others = [_member('mlp_out', (5.0, 5.0)), _member('resid_post', (6.0, 6.0))]
  x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
  original, rescaled = (
      [
          np.asarray(
              sae.decode(params, sae.encode(params, jnp.asarray(x * scale)))
          )
          for (sae, params), scale in zip(
              results._fold(members, scales_of), factors, strict=True
          )
      ]
      for scales_of, factors in ((members, (1, 1)), (others, (3, 5)))
  )
  np.testing.assert_allclose(rescaled[0], 3 * original[0], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(rescaled[1], 5 * original[1], rtol=1e-5, atol=1e-5)
  assert np.abs(original[0]).max() > 0.1
