"""Profiles by position, against plain NumPy."""

import numpy as np
import pytest

from jumprelu.data import packing
from jumprelu.evals.measures import positions as profile_lib
from tests.evals import measured


def profile(name):
  rows = [
      row
      for row in measured.evaluation().tables['positions']
      if row['path'] == measured.row(name)['path']
  ]
  return {row['position']: row for row in rows}


def documents():
  """Returns document numbers of the tokens in consecutive rows."""
  numbers, number, open_before = [], 0, False
  for tokens in measured.TOKENS:
    line = []
    for column, token in enumerate(tokens):
      if token == packing.BOS and not (column == 0 and open_before):
        number += 1
      line.append(number)
    open_before = tokens[-1] not in (packing.EOS, packing.PAD)
    numbers.append(line)
  return np.array(numbers)


def stderr(values, groups):
  """Returns the ratio estimator's standard error of a mean over documents."""
  names = np.unique(groups)
  totals = np.array([values[groups == g].sum() for g in names])
  counts = np.array([(groups == g).sum() for g in names])
  deviations = totals - values.mean() * counts
  factor = len(names) / (len(names) - 1)
  return np.sqrt(factor * np.square(deviations).sum()) / counts.sum()


def test_standard_errors_are_over_documents_that_fill_several_rows():
  # Two documents fill three and two rows: five tokens at each position.
  positions = np.tile(np.arange(3), (5, 1))
  numbers = np.repeat([[0], [0], [0], [1], [1]], 3, axis=1)
  values = np.repeat([[1.0], [1.0], [1.0], [5.0], [5.0]], 3, axis=1)
  everywhere = np.ones((5, 3), bool)
  averages = profile_lib.Groups(positions, numbers, everywhere).average(values)
  np.testing.assert_allclose(averages.mean, 2.6)
  # Deviations of the totals: 3 - 3 * 2.6 and 10 - 2 * 2.6.
  np.testing.assert_allclose(averages.stderr, np.sqrt(2 * 2 * 4.8**2) / 5)
  # With a single document, the standard error is undefined.
  same = profile_lib.Groups(positions, numbers * 0, everywhere).average(values)
  assert np.isnan(same.stderr).all()


@pytest.mark.parametrize('name', ['random', 'transcoder'])
def test_profiles_equal_plain_numpy(name):
  latents, reconstruction, y = measured.sae(name)
  keep, positions = measured.KEEP, packing.positions(measured.TOKENS)
  mean = y[keep].mean(0)
  residual = np.square(y - reconstruction).sum(-1)
  delta = measured.losses(measured.spliced(name, reconstruction))
  delta -= measured.losses(measured.clean()[0])
  by_position, groups = profile(name), documents()
  # Some documents have several tokens at one position.
  pairs = np.stack([groups[keep], positions[keep]], axis=1)
  assert len(np.unique(pairs, axis=0)) < len(pairs)
  assert set(by_position) == set(positions[keep]) and 0 not in by_position
  for p, row in by_position.items():
    at = keep & (positions == p)
    assert row['tokens'] == at.sum()
    np.testing.assert_allclose(row['l0'], (latents[at] > 0).sum(-1).mean())
    np.testing.assert_allclose(
        row['squared_error'], residual[at].mean(), rtol=1e-4
    )
    if len(np.unique(groups[at])) > 1:
      error = stderr(residual[at], groups[at])
      np.testing.assert_allclose(row['squared_error_stderr'], error, rtol=1e-2)
    spread = np.square(y[at] - mean).sum()
    np.testing.assert_allclose(
        row['fvu'], residual[at].sum() / spread, rtol=1e-4
    )
    scored = measured.scored() & at[:, :-1]
    assert row['tokens_delta_loss'] == scored.sum()
    if scored.any():
      np.testing.assert_allclose(
          row['delta_loss'], delta[scored].mean(), rtol=1e-3, atol=1e-5
      )
    scored_groups = groups[:, :-1][scored]
    if len(np.unique(scored_groups)) > 1:
      error = stderr(delta[scored], scored_groups)
      np.testing.assert_allclose(
          row['delta_loss_stderr'], error, rtol=1e-2, atol=1e-5
      )


def test_profiles_add_up_to_the_row():
  row, by_position = measured.row('random'), profile('random').values()
  count = sum(p['tokens'] for p in by_position)
  assert count == row['tokens_evaluated']
  np.testing.assert_allclose(
      sum(p['l0'] * p['tokens'] for p in by_position) / count,
      row['l0'],
      rtol=1e-6,
  )
  scored = [p for p in by_position if p['tokens_delta_loss']]
  total = sum(p['delta_loss'] * p['tokens_delta_loss'] for p in scored)
  np.testing.assert_allclose(
      total / row['tokens_delta_loss'], row['delta_loss'], rtol=1e-4
  )
