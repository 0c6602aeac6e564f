"""TopK SAEs: selection, the auxiliary loss of dead latents, members by k."""

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import topk
from jumprelu.training import config
from tests.saes import small

# The first four latents are dead.
_SILENT = np.where(np.arange(small.WIDTH) < 4, 100, 99).astype(np.int32)


def _top(values, k):
  """Returns the k largest positive values of each row, by sorting."""
  order = np.argsort(-values, axis=1)[:, :k]
  kept = np.zeros_like(values)
  np.put_along_axis(kept, order, np.take_along_axis(values, order, 1), 1)
  return np.maximum(kept, 0)


def _pre_acts(p, inputs):
  return (inputs - p['b_dec']) @ p['W_enc'] + p['b_enc']


@pytest.mark.parametrize('silent', [None, _SILENT], ids=['alive', 'dead'])
def test_the_loss_equals_the_papers(silent):
  sae = small.make('topk', dead_after=100, aux_k=2, aux_coefficient=0.25)

  def loss(p, constants, inputs, targets):
    latents = _top(_pre_acts(p, inputs), 3)
    errors = targets - latents @ p['W_dec'] - p['b_dec']
    total = (errors**2).sum(axis=1)
    if silent is not None:
      c = constants
      missing = (
          targets - _top(_pre_acts(c, inputs), 3) @ c['W_dec'] - c['b_dec']
      )
      dead = np.where(np.arange(small.WIDTH) < 4, _pre_acts(p, inputs), -1)
      remaining = missing - _top(dead, 2) @ p['W_dec']
      total += 0.25 * (remaining**2).sum(axis=1)
    return total.mean()

  small.assert_equation(sae, loss, silent=silent)


def test_dead_latents_learn_from_the_auxiliary_loss_alone():
  for aux_k in (0, 4):
    sae = small.make('topk', dead_after=100, aux_k=aux_k)
    params = small.trained_like(sae)
    # Positive on half of the rows, and never among the largest.
    params['W_enc'][:, :4] *= 1e-3
    params['b_enc'][:4] = 0.0
    _, grads = small.gradients(
        sae,
        params,
        small.rows(1, small.D_IN),
        small.rows(2, small.D_IN),
        np.ones(small.ROWS, bool),
        silent=_SILENT,
    )
    for rows in (grads['W_dec'][:4], grads['W_enc'].T[:4]):
      assert (np.abs(rows).max(axis=1) > 0).all() == bool(aux_k)


def test_every_row_has_k_latents():
  sae = small.make('topk')
  params = small.trained_like(sae)
  params['b_enc'] += 5.0
  _, latents, _ = small.run(sae, params, small.rows(1, small.D_IN))
  np.testing.assert_array_equal((latents > 0).sum(axis=1), small.TARGET_L0)


def test_a_suite_has_one_member_per_k_for_any_coefficients():
  chosen = {'variants': ('jumprelu', 'topk'), 'sites': ('mlp_out',)}

  def members(**fields):
    suite = config.members(config.resolve(chosen | fields))
    return [(m.variant, m.sparsity_coefficient, m.target_l0) for m in suite]

  assert members(
      sparsity_coefficients=('1e-3', '3e-3'), **{'sae.topk.k': (8.0, 16.0)}
  ) == [
      ('jumprelu', 1e-3, 0.0),
      ('jumprelu', 3e-3, 0.0),
      ('topk', 0.0, 8.0),
      ('topk', 0.0, 16.0),
  ]
  assert members(target_l0=(20.0,)) == [
      ('jumprelu', 1.0, 20.0),
      ('topk', 0.0, 20.0),
  ]


def test_a_release_keeps_k():
  sae = small.make('topk')
  params = jax.tree.map(jax.numpy.asarray, small.trained_like(sae))
  _, raw = sae.fold(params, input_scale=2.0, target_scale=2.0)
  assert raw['k'] == small.TARGET_L0


@pytest.mark.parametrize(
    'field, value',
    [
        ('k', ()),
        ('k', (0.0,)),
        ('aux_k', -1),
        ('aux_coefficient', float('nan')),
        ('dead_after', 0),
    ],
)
def test_a_bad_field_is_named(field, value):
  with pytest.raises(errors.UserError, match=rf'topk\.{field} must be'):
    topk.Config(**{field: value})
