"""Members that start from other SAEs compute the same function."""

import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.training import initial
from tests import small_release

_X = 4 * np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)


def _source(sae, params):
  folded, arrays = sae.fold(params, input_scale=3.5, target_scale=0.75)
  arrays = {name: np.array(x) for name, x in arrays.items()}
  return initial.Source('a/b', folded, arrays, 'ab')


def _latents(source):
  """Returns the arrays of a source and its latents of raw activations."""
  params = {name: jnp.asarray(x) for name, x in source.params.items()}
  return params, source.sae.encode(params, jnp.asarray(_X))


def _started(source, sae, *, input_scale, target_scale):
  usual = small_release.perturbed(sae, 9)
  initial.check(source, sae)
  return initial.params(
      source,
      sae,
      usual,
      input_scale=input_scale,
      target_scale=target_scale,
  )


@pytest.mark.parametrize(
    'variant, fields',
    [
        ('jumprelu', {'threshold_parameter': 'log'}),
        ('jumprelu', {'threshold_parameter': 'linear'}),
        ('jumprelu', {'pre_encoder_bias': True}),
        ('relu', {'pre_encoder_bias': True}),
        ('gated', {'pre_encoder_bias': False}),
        ('batch_topk', {}),
    ],
)
def test_a_started_sae_is_its_source_at_other_scales(variant, fields):
  sae, params = small_release.trained_sae(seed=1, variant=variant, **fields)
  source = _source(sae, params)
  made = _started(source, sae, input_scale=2.0, target_scale=5.0)
  latents = sae.encode(made, jnp.asarray(_X / 2.0))
  outputs = 5.0 * sae.decode(made, latents, jnp.asarray(_X / 2.0))
  params, theirs = _latents(source)
  expected = source.sae.decode(params, theirs, jnp.asarray(_X))
  assert 0 < np.count_nonzero(theirs) < theirs.size
  np.testing.assert_allclose(latents * 5.0, theirs, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_k_is_that_of_the_member():
  sae, params = small_release.trained_sae(seed=1, variant='topk')
  made = _started(_source(sae, params), sae, input_scale=2.0, target_scale=2.0)
  assert made['k'] == small_release.perturbed(sae, 9)['k']


def test_a_transcoder_starts_from_a_transcoder():
  sae, params = small_release.trained_transcoder()
  source = _source(sae, params)
  made = _started(source, sae, input_scale=2.0, target_scale=0.5)
  ours = sae.encode(made, jnp.asarray(_X / 2.0)) * 0.5
  _, theirs = _latents(source)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_thresholds_at_or_below_zero_become_small():
  sae, params = small_release.trained_sae(seed=1, threshold_parameter='log')
  source = _source(sae, params)
  source.params['threshold'][:3] = [-1.0, 0.0, -1e-9]  # pyright: ignore
  made = _started(source, sae, input_scale=2.0, target_scale=2.0)
  assert np.isfinite(made['log_threshold']).all()
  assert (np.exp(made['log_threshold'][:3]) <= 1.1e-6).all()


def test_other_shapes_and_untied_biases_are_refused():
  sae, params = small_release.trained_sae(seed=1)
  wider, _ = small_release.trained_sae(seed=1, width=14)
  with pytest.raises(errors.UserError, match='a/b: width is 12, and .* 14'):
    initial.check(_source(sae, params), wider)
  other, _ = small_release.trained_sae(seed=1, variant='relu')
  with pytest.raises(errors.UserError, match='variant is jumprelu, .* relu'):
    initial.check(_source(sae, params), other)
  gated, params = small_release.trained_sae(
      seed=1, variant='gated', pre_encoder_bias=True
  )
  with pytest.raises(errors.UserError, match='pre_encoder_bias=false'):
    initial.check(_source(gated, params), gated)
