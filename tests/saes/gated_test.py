"""Gated SAEs: the paper's loss, its gradients, and its JumpReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import gated
from tests.saes import small

_ABLATIONS = ('tied', 'rescale', 'frozen_decoder')
_options = pytest.mark.parametrize(
    'options',
    [{}, {'decoder_norm': 'free'}, *({name: False} for name in _ABLATIONS)],
    ids=str,
)


def _gate_and_magnitude(p, inputs, *, pre_encoder_bias=True):
  """Returns gate and magnitude by the paper's formula; r_mag defaults to 0."""
  centred = inputs - pre_encoder_bias * p['b_dec']
  shared = p['W_enc'] * np.exp(p.get('r_mag', 0))
  magnitude = centred @ p.get('W_mag', shared) + p['b_mag']
  return centred @ p['W_enc'] + p['b_enc'], magnitude


def _latents(gate, magnitude):
  return np.where(gate > 0, np.maximum(magnitude, 0), 0)


@_options
def test_the_loss_equals_the_papers(options):
  sae = small.make('gated', **options)

  def loss(p, constants, inputs, targets):
    gate, magnitude = _gate_and_magnitude(p, inputs)
    errors = targets - _latents(gate, magnitude) @ p['W_dec'] - p['b_dec']
    open_gate = np.maximum(gate, 0)
    # A frozen decoder gets no gradient from the gate's terms, nor from its
    # penalty.
    decoder = constants if options.get('frozen_decoder', True) else p
    norms = np.sqrt((decoder['W_dec'] ** 2).sum(axis=1))
    by_gate = targets - open_gate @ decoder['W_dec'] - decoder['b_dec']
    return np.mean(
        (errors**2).sum(axis=1)
        + 0.1 * (open_gate * norms).sum(axis=1)
        + (by_gate**2).sum(axis=1)
    )

  small.assert_equation(sae, loss)


@pytest.mark.parametrize(
    'options, names',
    [
        ({}, {'r_mag', 'b_mag'}),
        ({'rescale': False}, {'b_mag'}),
        ({'tied': False}, {'W_mag', 'b_mag'}),
    ],
)
def test_an_ablation_has_only_the_parameters_it_needs(options, names):
  sae = small.make('gated', **options)
  params = small.init(sae, jax.random.key(0))
  assert set(params) - {'W_enc', 'b_enc', 'W_dec', 'b_dec'} == names


def _folded(options):
  """Returns parameters, and the SAE folded for inputs * 5 and targets * 2.5."""
  sae = small.make('gated', **options)
  params = small.trained_like(sae)
  # Some gates open below the magnitude's zero and some above it.
  params['b_mag'] = np.linspace(-0.6, 0.6, small.WIDTH, dtype=np.float32)
  if 'r_mag' in params:
    params['r_mag'] = np.linspace(0.5, -0.5, small.WIDTH, dtype=np.float32)
  folded, raw = sae.fold(
      jax.tree.map(jnp.asarray, params), input_scale=5.0, target_scale=2.5
  )
  return params, folded, raw


@pytest.mark.parametrize(
    'options', [{}, {'pre_encoder_bias': False}, {'rescale': False}], ids=str
)
def test_a_gated_sae_equals_its_jumprelu_form(options):
  params, folded, raw = _folded(options)
  _, arrays = folded.to_jumprelu(raw)
  j = jax.tree.map(np.float64, arrays)
  assert 0 < (j['threshold'] == 0).sum() < small.WIDTH

  p = jax.tree.map(np.float64, params)
  scaled = np.random.default_rng(6).normal(size=(500, small.D_IN))
  latents = _latents(
      *_gate_and_magnitude(
          p, scaled, pre_encoder_bias=options.get('pre_encoder_bias', True)
      )
  )
  assert 0.1 < (latents > 0).mean() < 0.9

  pre_acts = 5 * scaled @ j['W_enc'] + j['b_enc']
  by_jumprelu = np.where(pre_acts > j['threshold'], pre_acts, 0)
  np.testing.assert_allclose(by_jumprelu, 2.5 * latents, atol=1e-5)
  np.testing.assert_allclose(
      by_jumprelu @ j['W_dec'] + j['b_dec'],
      2.5 * (latents @ p['W_dec'] + p['b_dec']),
      atol=1e-5,
  )


@pytest.mark.parametrize('pre_encoder_bias', [True, False])
def test_an_untied_sae_has_no_jumprelu_form_and_can_be_folded(
    pre_encoder_bias,
):
  params, folded, raw = _folded(
      {'tied': False, 'pre_encoder_bias': pre_encoder_bias}
  )
  assert folded.to_jumprelu(raw) is None
  inputs = small.rows(6, small.D_IN)
  gate, magnitude = _gate_and_magnitude(
      jax.tree.map(np.float64, params),
      np.float64(inputs),
      pre_encoder_bias=pre_encoder_bias,
  )
  # No threshold on magnitudes separates open gates from closed ones.
  on = np.where(gate > 0, magnitude, np.inf).min(axis=0)
  off = np.where(gate > 0, -np.inf, magnitude).max(axis=0)
  assert (on < off).sum() > small.WIDTH / 2
  _, latents, _ = small.run(folded, raw, 5 * inputs)
  np.testing.assert_allclose(
      latents, 2.5 * _latents(gate, magnitude), atol=1e-5
  )
  with pytest.raises(TypeError, match='needs its inputs'):
    folded.activate(raw, jnp.asarray(gate, jnp.float32))


@pytest.mark.parametrize('tied', [True, False])
def test_at_init_the_magnitude_is_the_gate(tied):
  sae = small.make('gated', tied=tied)
  params = small.init(sae, jax.random.key(0))
  pre_acts, latents, _ = small.run(sae, params, small.rows(1, small.D_IN))
  np.testing.assert_allclose(latents, np.maximum(pre_acts, 0), rtol=1e-6)


def test_ri_l1_frees_the_decoder():
  assert small.make('gated').unit_norm_decoder
  assert not small.make('gated', decoder_norm='free').unit_norm_decoder


def test_a_bad_norm_is_named():
  with pytest.raises(errors.UserError, match="gated.decoder_norm .*'l2'"):
    gated.Config(decoder_norm='l2')
