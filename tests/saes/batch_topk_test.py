"""BatchTopK SAEs: selection over a batch, and the running threshold."""

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.saes import batch_topk
from tests.saes import small


def _pre_acts(p, inputs):
  return (inputs - p['b_dec']) @ p['W_enc'] + p['b_enc']


def _select(values, count):
  return np.where(values >= np.sort(values, axis=None)[-count], values, 0)


def test_the_loss_equals_the_papers():
  sae = small.make('batch_topk')

  def loss(p, _, inputs, targets):
    latents = _select(_pre_acts(p, inputs), 3 * len(inputs))
    errors = targets - latents @ p['W_dec'] - p['b_dec']
    return (errors**2).sum(axis=1).mean()

  small.assert_equation(sae, loss)


def test_rows_share_a_selection_that_leaves_dropped_rows_out():
  sae, keep = small.make('batch_topk'), np.arange(small.ROWS) % 2 == 0
  params = small.trained_like(sae)
  inputs = small.rows(1, small.D_IN)
  inputs[~keep] *= 100
  pre_acts = small.run(sae, params, inputs)[0]
  select = jax.jit(sae.batch_latents)
  latents = np.asarray(select(params, pre_acts, inputs=inputs, keep=keep))
  assert not latents[~keep].any()
  row_l0 = (latents[keep] > 0).sum(axis=1)
  assert row_l0.sum() == small.TARGET_L0 * keep.sum()
  assert row_l0.min() < small.TARGET_L0 < row_l0.max()


def test_the_threshold_is_a_running_mean_of_each_batchs_smallest_latent():
  sae = small.make('batch_topk', threshold_decay=0.75)
  params = dict(small.init(sae, jax.random.key(0)))
  keep = np.arange(small.ROWS) % 4 != 0
  expected = None
  for seed in range(3):
    inputs = small.rows(seed, small.D_IN)
    parts, _ = small.gradients(sae, params, inputs, inputs, keep)
    params |= parts.carried
    pre_acts = _pre_acts(jax.tree.map(np.float64, params), inputs[keep])
    latents = _select(pre_acts, 3 * keep.sum())
    smallest = latents[latents > 0].min()
    expected = smallest if seed == 0 else 0.75 * expected + 0.25 * smallest
    np.testing.assert_allclose(params['threshold'], expected, rtol=1e-5)


def test_a_batch_without_latents_leaves_the_threshold():
  sae = small.make('batch_topk')
  params = small.trained_like(sae)
  zeros = np.zeros((small.ROWS, small.D_IN), np.float32)
  parts, _ = small.gradients(
      sae, params, zeros, zeros, np.zeros(small.ROWS, bool)
  )
  assert params['threshold'].all()
  np.testing.assert_array_equal(parts.carried['threshold'], params['threshold'])


def test_inference_latents_are_those_above_the_threshold():
  sae = small.make('batch_topk')
  params = small.trained_like(sae)
  pre_acts, latents, _ = small.run(sae, params, small.rows(1, small.D_IN))
  on = np.asarray(pre_acts) > params['threshold'][0]
  np.testing.assert_array_equal(latents, np.where(on, pre_acts, 0))


def test_a_bad_decay_is_named():
  with pytest.raises(errors.UserError, match='batch_topk.threshold_decay .*1'):
    batch_topk.Config(threshold_decay=1.0)
