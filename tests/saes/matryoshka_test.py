"""Matryoshka SAEs: every prefix reconstructs; in use nothing is nested."""

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import matryoshka
from tests.saes import small

_SHARES = (0.25, 0.5)  # 3 and 6 of 12 latents.
_BANDWIDTH = 0.4


def _errors(p, latents, targets):
  """The errors of 3, 6 and 12 latents."""
  return [
      latents[:, :m] @ p['W_dec'][:m] + p['b_dec'] - targets for m in (3, 6, 12)
  ]


def _pre_acts(p, inputs):
  return (inputs - p['b_dec']) @ p['W_enc'] + p['b_enc']


def test_a_nested_jumprelus_loss_is_the_papers_sum_over_prefixes():
  sae = small.make(
      'matryoshka_jumprelu', prefix_shares=_SHARES, bandwidth=_BANDWIDTH
  )

  def loss(p, _, inputs, targets):
    z = _pre_acts(p, inputs)
    on = z > np.exp(p['log_threshold'])
    squares = [(e**2).sum(axis=1) for e in _errors(p, z * on, targets)]
    return np.mean(sum(squares) + 0.1 * on.sum(axis=1))

  def to_threshold(p, inputs, targets):
    z, theta = _pre_acts(p, inputs), p['threshold']
    near = np.abs(z - theta) < _BANDWIDTH / 2
    to_latents = np.zeros_like(z)
    found = _errors(p, z * (z > theta), targets)
    for m, error in zip((3, 6, 12), found, strict=True):
      to_latents[:, :m] += 2 * error @ p['W_dec'][:m].T
    return -(near * (theta * to_latents + 0.1)).mean(axis=0) / _BANDWIDTH

  small.assert_equation(sae, loss, to_threshold=to_threshold)


def test_a_nested_batch_topk_selects_once_for_all_prefixes():
  sae = small.make('matryoshka_batch_topk', prefix_shares=_SHARES)

  def loss(p, _, inputs, targets):
    z = _pre_acts(p, inputs)
    latents = np.where(z >= np.sort(z, axis=None)[-3 * len(z)], z, 0)
    squares = [(e**2).sum(axis=1) for e in _errors(p, latents, targets)]
    return np.mean(sum(squares))

  small.assert_equation(sae, loss)


def test_prefixes_are_shares_of_the_width():
  config = matryoshka.JumpReluConfig()
  assert config.prefixes(1024) == [32, 96, 224, 480]
  # Of few latents fewer prefixes are left.
  assert config.prefixes(8) == [1, 2, 4]


@pytest.mark.parametrize('shares', [(0.5, 0.25), (0.0,), (0.5, 1.0)])
def test_shares_that_do_not_rise_are_named(shares):
  with pytest.raises(errors.UserError, match='matryoshka.prefix_shares must'):
    matryoshka.BatchTopKConfig(prefix_shares=shares)
