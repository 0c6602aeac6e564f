"""Matryoshka SAEs: every prefix reconstructs; only training uses prefixes."""

import numpy as np
import pytest

from jumprelu import errors, saes
from tests.saes import small

_SHARES = (0.25, 0.5)  # 3 and 6 of 12 latents.
_BANDWIDTH = 0.4
_OTHERS = ('gated', 'topk')


def _errors(p, latents, targets):
  """Returns the errors of the prefixes of 3, 6 and 12 latents."""
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
    errors_of_prefixes = _errors(p, z * (z > theta), targets)
    for m, error in zip((3, 6, 12), errors_of_prefixes, strict=True):
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


@pytest.mark.parametrize(
    'plain',
    ['relu', *(pytest.param(v, marks=pytest.mark.slow) for v in _OTHERS)],
)
def test_nesting_adds_the_prefixes_errors_and_nothing_else(plain):
  nested = small.make(f'matryoshka_{plain}', prefix_shares=_SHARES)
  alone = small.make(plain)
  params = small.trained_like(nested)
  inputs, targets = small.rows(1, small.D_IN), small.rows(2, small.D_IN)
  keep = np.arange(small.ROWS) % 4 != 0
  parts, _ = small.gradients(nested, params, inputs, targets, keep)
  expected, _ = small.gradients(alone, params, inputs, targets, keep)
  _, latents, _ = small.run(alone, params, inputs)
  prefixes = _errors(params, np.asarray(latents), targets)[:2]
  added = sum((e[keep] ** 2).sum(axis=1) for e in prefixes).mean()
  np.testing.assert_allclose(parts.loss, expected.loss + added, rtol=1e-5)
  assert parts.reconstruction == expected.reconstruction


def test_prefixes_are_shares_of_the_width():
  config = saes.VARIANTS['matryoshka_jumprelu'][1]()
  assert config.prefixes(1024) == [32, 96, 224, 480]
  # A small width has fewer prefixes, because equal sizes are merged.
  assert config.prefixes(8) == [1, 2, 4]


@pytest.mark.parametrize('shares', [(0.5, 0.25), (0.0,), (0.5, 1.0)])
def test_shares_that_do_not_increase_are_named(shares):
  with pytest.raises(errors.UserError, match='prefix_shares must be rising'):
    saes.VARIANTS['matryoshka_batch_topk'][1](prefix_shares=shares)


def test_errors_name_the_flag_of_each_nested_variant():
  nested = [v for v in saes.VARIANTS if v.startswith('matryoshka')]
  assert len(nested) == 5
  for variant in nested:
    with pytest.raises(errors.UserError, match=f'^{variant}.prefix_shares '):
      saes.VARIANTS[variant][1](prefix_shares=(2.0,))
