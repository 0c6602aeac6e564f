"""ReLU SAEs: the Gated paper's baseline, and its form with free rows."""

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import relu
from jumprelu.training import optim
from tests.saes import small


@pytest.mark.parametrize('decoder_norm', relu.DECODER_NORMS)
def test_the_loss_equals_the_papers(decoder_norm):
  sae = small.make('relu', decoder_norm=decoder_norm)

  def loss(p, _, inputs, targets):
    latents = np.maximum((inputs - p['b_dec']) @ p['W_enc'] + p['b_enc'], 0)
    errors = targets - latents @ p['W_dec'] - p['b_dec']
    norms = np.sqrt((p['W_dec'] ** 2).sum(axis=1))
    return np.mean(
        (errors**2).sum(axis=1) + 0.1 * (latents * norms).sum(axis=1)
    )

  small.assert_equation(sae, loss)


@pytest.mark.parametrize('decoder_norm', relu.DECODER_NORMS)
def test_only_free_decoder_rows_take_adams_own_step(decoder_norm):
  sae = small.make('relu', decoder_norm=decoder_norm)
  params = {'W_dec': jax.numpy.asarray([[0.6, 0.8]])}
  updated, _ = optim.update(
      params,
      optim.init_nu(params),
      {'W_dec': jax.numpy.asarray([[6.0, 8.0]])},
      step=0,
      learning_rate=0.25,
      config=optim.Config(),
      unit_norm=sae.unit_norm_decoder,
  )
  # The gradient is along the row: a unit-norm row does not move, and a free row
  # moves by the learning rate in every entry.
  expected = [[0.6, 0.8]] if decoder_norm == 'unit' else [[0.35, 0.55]]
  np.testing.assert_allclose(updated['W_dec'], expected, rtol=1e-3)


def test_one_feature_of_size_1_shrinks_to_a_half():
  """The Gated paper's shrinkage: (1 - f)^2 + f has its minimum at 1/2."""
  sae = small.make('relu', transcoder=True)
  params = {
      'W_enc': np.zeros((6, 12), np.float32),
      'b_enc': np.full(12, -1.0, np.float32),
      'W_dec': np.eye(12, 5, dtype=np.float32),
      'b_dec': np.zeros(5, np.float32),
  }
  targets = np.tile(np.eye(1, 5, dtype=np.float32), (small.ROWS, 1))
  batch = np.zeros((small.ROWS, 6), np.float32), targets
  for size, sign in ((0.4, -1), (0.5, 0), (0.6, 1)):
    params['b_enc'][0] = size
    _, grads = small.gradients(
        sae, params, *batch, np.ones(small.ROWS, bool), coefficient=1.0
    )
    slope = grads['b_enc'][0]
    np.testing.assert_allclose(slope, 2 * (size - 0.5), atol=1e-5)
    assert np.sign(np.round(slope, 4)) == sign


def test_a_relu_has_thresholds_of_zero_as_a_jumprelu():
  sae = small.make('relu')
  params = jax.tree.map(jax.numpy.asarray, small.trained_like(sae))
  _, arrays = sae.fold(params, input_scale=2.0, target_scale=2.0)[
      0
  ].to_jumprelu(params)
  np.testing.assert_array_equal(arrays['threshold'], 0.0)


def test_a_bad_norm_is_named():
  with pytest.raises(errors.UserError, match="relu.decoder_norm .*'l2'"):
    relu.Config(decoder_norm='l2')
