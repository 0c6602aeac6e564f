"""The quadratic L0 penalty and the frequency penalty, term by term."""

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import jumprelu_quadratic
from jumprelu.training import config
from tests.saes import small

_BANDWIDTH = 0.4


def _pre_acts(p, inputs):
  return (inputs - p['b_dec']) @ p['W_enc'] + p['b_enc']


@pytest.mark.parametrize('weight', [0.0, 0.5])
def test_the_loss_equals_the_papers(weight):
  sae = small.make(
      'jumprelu_quadratic',
      bandwidth=_BANDWIDTH,
      frequency_coefficient=weight,
      frequency_scale=0.2,
  )

  def loss(p, _, inputs, targets):
    z = _pre_acts(p, inputs)
    on = z > np.exp(p['log_threshold'])
    errors = (z * on) @ p['W_dec'] + p['b_dec'] - targets
    distance = (on.sum(axis=1) - 3) ** 2 / (2 * 3)
    dense = (on.mean(axis=0) ** 2 / 0.2).sum()
    return np.mean((errors**2).sum(axis=1) + 0.1 * distance) + (
        0.1 * weight * dense
    )

  def to_threshold(p, inputs, targets):
    z, theta = _pre_acts(p, inputs), p['threshold']
    on, near = z > theta, np.abs(z - theta) < _BANDWIDTH / 2
    errors = (z * on) @ p['W_dec'] + p['b_dec'] - targets
    to_step = 0.1 * (on.sum(axis=1, keepdims=True) - 3) / 3
    to_step = to_step + 0.1 * weight * 2 * on.mean(axis=0) / 0.2
    to_latents = 2 * errors @ p['W_dec'].T
    return -(near * (theta * to_latents + to_step)).mean(axis=0) / _BANDWIDTH

  small.assert_equation(sae, loss, to_threshold=to_threshold)


def test_a_suite_holds_each_coefficient_at_each_aim():
  chosen = {'variants': ('jumprelu_quadratic',), 'sites': ('mlp_out',)}

  def members(**fields):
    suite = config.members(config.resolve(chosen | fields))
    return [(m.sparsity_coefficient, m.target_l0) for m in suite]

  aims = {'sae.jumprelu_quadratic.aims': (20.0, 50.0)}
  assert members(sparsity_coefficients=('1e-3', '3e-3'), **aims) == [
      (1e-3, 20.0),
      (1e-3, 50.0),
      (3e-3, 20.0),
      (3e-3, 50.0),
  ]
  assert members(target_l0=(9.0,), **aims) == [(1e-3, 9.0)]


@pytest.mark.parametrize(
    'field, value',
    [
        ('aims', ()),
        ('aims', (-1.0,)),
        ('coefficient', 0.0),
        ('frequency_coefficient', -1.0),
        ('frequency_scale', 0.0),
    ],
)
def test_a_bad_field_is_named(field, value):
  with pytest.raises(errors.UserError, match=rf'quadratic\.{field} must be'):
    jumprelu_quadratic.Config(**{field: value})
