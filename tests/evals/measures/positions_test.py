"""Profiles by position, token by token in plain NumPy."""

import numpy as np
import pytest

from jumprelu.data import packing
from tests.evals import measured


def profile(name):
  rows = [
      row
      for row in measured.evaluation().tables['positions']
      if row['path'] == measured.row(name)['path']
  ]
  return {row['position']: row for row in rows}


@pytest.mark.parametrize('name', ['random', 'transcoder'])
def test_profiles_equal_plain_numpy(name):
  latents, reconstruction, y = measured.sae(name)
  keep, positions = measured.KEEP, packing.positions(measured.TOKENS)
  mean = y[keep].mean(0)
  residual = np.square(y - reconstruction).sum(-1)
  delta = measured.losses(measured.spliced(name, reconstruction))
  delta -= measured.losses(measured.clean()[0])
  found = profile(name)
  assert set(found) == set(positions[keep]) and 0 not in found
  for p, row in found.items():
    at = keep & (positions == p)
    assert row['tokens'] == at.sum()
    np.testing.assert_allclose(row['l0'], (latents[at] > 0).sum(-1).mean())
    np.testing.assert_allclose(
        row['squared_error'], residual[at].mean(), rtol=1e-4
    )
    if at.sum() > 1:
      error = residual[at].std(ddof=1) / np.sqrt(at.sum())
      np.testing.assert_allclose(row['squared_error_stderr'], error, rtol=1e-2)
    spread = np.square(y[at] - mean).sum()
    np.testing.assert_allclose(
        row['fvu'], residual[at].sum() / spread, rtol=1e-4
    )
    some = measured.scored() & at[:, :-1]
    assert row['tokens_delta_loss'] == some.sum()
    if some.any():
      np.testing.assert_allclose(
          row['delta_loss'], delta[some].mean(), rtol=1e-3, atol=1e-5
      )
    if some.sum() > 1:
      error = delta[some].std(ddof=1) / np.sqrt(some.sum())
      np.testing.assert_allclose(
          row['delta_loss_stderr'], error, rtol=1e-2, atol=1e-5
      )


def test_the_profile_adds_up_to_the_row():
  row, found = measured.row('random'), profile('random').values()
  count = sum(p['tokens'] for p in found)
  assert count == row['tokens_evaluated']
  np.testing.assert_allclose(
      sum(p['l0'] * p['tokens'] for p in found) / count, row['l0'], rtol=1e-6
  )
  scored = [p for p in found if p['tokens_delta_loss']]
  total = sum(p['delta_loss'] * p['tokens_delta_loss'] for p in scored)
  np.testing.assert_allclose(
      total / row['tokens_delta_loss'], row['delta_loss'], rtol=1e-4
  )
