"""The tanh penalty and the pull on silent latents, term by term."""

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import jumprelu_tanh
from tests.saes import small

_BANDWIDTH = 0.4
_ROOT = np.sqrt(small.D_IN)


def _pre_acts(p, inputs):
  return inputs @ p['W_enc'] + p['b_enc']


def _norms(p):
  return np.sqrt((p['W_dec'] ** 2).sum(axis=1))


def test_the_loss_equals_the_texts_in_this_packages_scale():
  sae = small.make(
      'jumprelu_tanh',
      bandwidth=_BANDWIDTH,
      tanh_scale=0.5,
      pre_act_coefficient=0.3,
  )

  def loss(p, _, inputs, targets):
    z, theta = _pre_acts(p, inputs), np.exp(p['log_threshold'])
    latents = z * (z > theta)
    errors = latents @ p['W_dec'] + p['b_dec'] - targets
    count = np.tanh(0.5 * _ROOT * latents * _norms(p)).sum(axis=1)
    pull = (np.maximum(theta - z, 0) * _norms(p)).sum(axis=1)
    return np.mean((errors**2).sum(axis=1) + 0.1 * count + 0.3 / _ROOT * pull)

  def to_threshold(p, inputs, targets):
    z, theta = _pre_acts(p, inputs), p['threshold']
    on, near = z > theta, np.abs(z - theta) < _BANDWIDTH / 2
    errors = (z * on) @ p['W_dec'] + p['b_dec'] - targets
    steep = 0.5 * _ROOT * _norms(p)
    slope = steep * (1 - np.tanh(steep * z * on) ** 2)
    to_latents = 2 * errors @ p['W_dec'].T + 0.1 * slope
    direct = 0.3 / _ROOT * ~on * _norms(p)
    return (direct - near * theta * to_latents / _BANDWIDTH).mean(axis=0)

  small.assert_equation(sae, loss, to_threshold=to_threshold)


def test_the_decoder_is_free_and_inputs_are_not_shifted():
  sae = small.make('jumprelu_tanh')
  assert not sae.unit_norm_decoder
  assert not sae.subtracts_decoder_bias


@pytest.mark.parametrize(
    'field, value', [('tanh_scale', 0.0), ('pre_act_coefficient', -1.0)]
)
def test_a_bad_field_is_named(field, value):
  with pytest.raises(errors.UserError, match=rf'tanh\.{field} must be'):
    jumprelu_tanh.Config(**{field: value})
