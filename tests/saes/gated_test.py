"""Gated SAEs: the paper's loss, its gradients, and its JumpReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import gated
from tests.saes import small


@pytest.mark.parametrize('decoder_norm', ['unit', 'free'])
def test_the_loss_is_the_papers(decoder_norm):
  sae = small.make('gated', decoder_norm=decoder_norm)

  def loss(p, constants, inputs, targets):
    centred = inputs - p['b_dec']
    gate = centred @ p['W_enc'] + p['b_enc']
    magnitude = centred @ (p['W_enc'] * np.exp(p['r_mag'])) + p['b_mag']
    latents = np.where(gate > 0, np.maximum(magnitude, 0), 0)
    errors = targets - latents @ p['W_dec'] - p['b_dec']
    open_gate = np.maximum(gate, 0)
    # Nothing of the gate's half teaches the decoder, its penalty neither.
    norms = np.sqrt((constants['W_dec'] ** 2).sum(axis=1))
    by_gate = targets - open_gate @ constants['W_dec'] - constants['b_dec']
    return np.mean(
        (errors**2).sum(axis=1)
        + 0.1 * (open_gate * norms).sum(axis=1)
        + (by_gate**2).sum(axis=1)
    )

  small.assert_equation(sae, loss)


@pytest.mark.parametrize('pre_encoder_bias', [True, False])
def test_a_gated_sae_equals_its_jumprelu_form(pre_encoder_bias):
  sae = small.make('gated', pre_encoder_bias=pre_encoder_bias)
  params = small.trained_like(sae)
  # Gates that open below and above the magnitude's own zero.
  params['b_mag'] = np.linspace(-0.6, 0.6, small.WIDTH, dtype=np.float32)
  params['r_mag'] = np.linspace(0.5, -0.5, small.WIDTH, dtype=np.float32)
  folded, raw = sae.fold(
      jax.tree.map(jnp.asarray, params), input_scale=2.5, target_scale=2.5
  )
  _, arrays = folded.to_jumprelu(raw)
  j = jax.tree.map(np.float64, arrays)
  assert 0 < (j['threshold'] == 0).sum() < small.WIDTH

  p = jax.tree.map(np.float64, params)
  scaled = np.random.default_rng(6).normal(size=(500, small.D_IN))
  centred = scaled - pre_encoder_bias * p['b_dec']
  gate = centred @ p['W_enc'] + p['b_enc']
  magnitude = centred @ (p['W_enc'] * np.exp(p['r_mag'])) + p['b_mag']
  latents = np.where(gate > 0, np.maximum(magnitude, 0), 0)
  assert 0.1 < (latents > 0).mean() < 0.9

  pre_acts = 2.5 * scaled @ j['W_enc'] + j['b_enc']
  found = np.where(pre_acts > j['threshold'], pre_acts, 0)
  np.testing.assert_allclose(found, 2.5 * latents, atol=1e-5)
  np.testing.assert_allclose(
      found @ j['W_dec'] + j['b_dec'],
      2.5 * (latents @ p['W_dec'] + p['b_dec']),
      atol=1e-5,
  )


def test_at_init_the_magnitude_is_the_gate():
  sae = small.make('gated')
  params = small.init(sae, jax.random.key(0))
  pre_acts, latents, _ = small.run(sae, params, small.rows(1, small.D_IN))
  np.testing.assert_allclose(latents, np.maximum(pre_acts, 0), rtol=1e-6)


def test_ri_l1_frees_the_decoder():
  assert small.make('gated').unit_norm_decoder
  assert not small.make('gated', decoder_norm='free').unit_norm_decoder


def test_a_bad_norm_is_named():
  with pytest.raises(errors.UserError, match="gated.decoder_norm .*'l2'"):
    gated.Config(decoder_norm='l2')
