"""Rescaled ReLU SAEs: an unaffected ReLU SAE, and its rescaled latents."""

import jax
import numpy as np

from tests.saes import small


def _latents(p, inputs):
  """Returns the ReLU's latents, plain and rescaled."""
  z = (inputs - p['b_dec']) @ p['W_enc'] + p['b_enc']
  moved = np.exp(p['r_mag']) * z + p['shift']
  return np.maximum(z, 0), np.where(z > 0, np.maximum(moved, 0), 0)


def _errors(p, latents, targets):
  return ((targets - latents @ p['W_dec'] - p['b_dec']) ** 2).sum(axis=1)


def test_the_loss_is_a_relus_plus_that_of_gain_and_shift():
  sae = small.make('relu_rescaled')

  def loss(p, constants, inputs, targets):
    plain, _ = _latents(p, inputs)
    fitted = constants | {name: p[name] for name in ('r_mag', 'shift')}
    _, moved = _latents(fitted, inputs)
    penalty = plain @ np.sqrt((p['W_dec'] ** 2).sum(axis=1))
    return np.mean(
        _errors(p, plain, targets)
        + 0.1 * penalty
        + _errors(fitted, moved, targets)
    )

  small.assert_equation(sae, loss)


def test_the_relu_sae_learns_as_if_it_were_alone():
  sae, alone = small.make('relu_rescaled'), small.make('relu')
  params = small.trained_like(sae)
  shared = {k: v for k, v in params.items() if k not in ('r_mag', 'shift')}
  batch = small.rows(1, small.D_IN), small.rows(2, small.D_IN)
  keep = np.arange(small.ROWS) % 3 != 0
  parts, grads = small.gradients(sae, params, *batch, keep)
  expected_parts, expected = small.gradients(alone, shared, *batch, keep)
  for name, gradient in expected.items():
    np.testing.assert_allclose(grads[name], gradient, atol=1e-6)
  assert parts.l0 == expected_parts.l0
  assert np.abs(grads['r_mag']).min() > 0 < np.abs(grads['shift']).min()


def test_inference_latents_are_rescaled_at_any_scale():
  sae = small.make('relu_rescaled')
  params = small.trained_like(sae)
  # Negative shifts deactivate latents; positive shifts become thresholds.
  params['shift'] = np.linspace(-0.4, 0.4, small.WIDTH, dtype=np.float32)
  inputs = small.rows(1, small.D_IN)
  exact = jax.tree.map(np.float64, params)
  plain, moved = _latents(exact, np.float64(inputs))
  assert 0 < (moved > 0).sum() < (plain > 0).sum()
  _, latents, _ = small.run(sae, params, inputs)
  np.testing.assert_allclose(latents, moved, atol=1e-5)

  folded, raw = sae.fold(
      jax.tree.map(jax.numpy.asarray, params),
      input_scale=2.5,
      target_scale=2.5,
  )
  _, arrays = folded.to_jumprelu(raw)
  assert (arrays['threshold'] == np.maximum(raw['shift'], 0)).all()
  arrays = jax.tree.map(np.float64, arrays)
  z = 2.5 * inputs @ arrays['W_enc'] + arrays['b_enc']
  np.testing.assert_allclose(
      np.where(z > arrays['threshold'], z, 0), 2.5 * moved, atol=1e-4
  )
