"""Gradient pursuit, and its columns, against NumPy in float64."""

import jax
import numpy as np

from jumprelu.evals.measures import pursuit
from tests.evals import measured

_latents = jax.jit(pursuit.latents)


def reference(targets, W_dec, rounds):
  """Returns latents of gradient pursuit, row by row in float64."""
  codes = np.zeros((len(targets), len(W_dec)))
  for row, latents in zip(targets, codes, strict=True):
    chosen = []
    for _ in range(rounds):
      residual = row - latents @ W_dec
      gain = W_dec @ residual
      candidates = [i for i in range(len(W_dec)) if i not in chosen]
      best = max(candidates, key=lambda i: gain[i])
      if gain[best] > 0:
        chosen.append(best)
      move = gain[chosen] @ W_dec[chosen]
      if move @ move:
        step = residual @ move / (move @ move)
        latents[chosen] += step * gain[chosen]
        latents[:] = np.maximum(latents, 0)
  return codes


def dictionary(rng, rows, size):
  draws = rng.normal(size=(rows, size))
  return draws / np.linalg.norm(draws, axis=1, keepdims=True)


def test_latents_equal_plain_numpy():
  rng = np.random.default_rng(0)
  W_dec = dictionary(rng, 24, 8)
  targets = rng.normal(size=(16, 8))
  for rounds in (1, 5):
    actual = _latents(np.float32(targets), np.float32(W_dec), rounds)
    wanted = reference(targets, W_dec, rounds)
    np.testing.assert_allclose(actual, wanted, atol=1e-4)
    assert ((actual > 0).sum(1) <= rounds).all()


def test_the_largest_latents_of_an_orthogonal_dictionary_are_selected():
  rng = np.random.default_rng(1)
  W_dec = np.linalg.qr(rng.normal(size=(12, 12)))[0]
  codes = rng.normal(size=(20, 12))
  actual = _latents(np.float32(codes @ W_dec), np.float32(W_dec), 4)
  border = np.sort(codes, axis=1)[:, -4:-3]
  wanted = np.where((codes >= border) & (codes > 0), codes, 0)
  np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_columns_equal_plain_numpy():
  latents, reconstruction, y = measured.sae('random')
  member = measured.members()[measured.NAMES.index('random')]
  row, keep = measured.row('random'), measured.KEEP
  W_dec = np.asarray(member.params['W_dec'], np.float64)
  b_dec = np.asarray(member.params['b_dec'], np.float64)
  rounds = max(1, round((latents[keep] != 0).sum(-1).mean()))
  codes = reference(y.reshape(-1, len(b_dec)) - b_dec, W_dec, rounds)
  outputs = (codes @ W_dec + b_dec).reshape(y.shape)
  variance = np.square(y[keep] - y[keep].mean(0)).sum()

  def fvu(values):
    return np.square(values[keep] - y[keep]).sum() / variance

  active = (codes > 0).reshape(*keep.shape, -1)[keep].sum(-1).mean()
  np.testing.assert_allclose(row['pursuit_l0'], active, rtol=1e-3)
  np.testing.assert_allclose(row['pursuit_fvu'], fvu(outputs), rtol=1e-3)
  np.testing.assert_allclose(row['encoder_fvu'], fvu(reconstruction), rtol=1e-3)
  clean, spliced = (
      measured.losses(x)[measured.scored()].mean()
      for x in (measured.clean()[0], measured.spliced('random', outputs))
  )
  np.testing.assert_allclose(
      row['pursuit_delta_loss'], spliced - clean, rtol=2e-3, atol=1e-5
  )
  assert row['pursuit_fvu'] < row['encoder_fvu']
