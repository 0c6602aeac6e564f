"""r_L0, by hand and on the tiny model with one token's gradient at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.data import packing
from jumprelu.evals.measures import uniformity
from jumprelu.lm import gemma
from tests.evals import measured
from tests.lm import tiny


def test_values_by_hand():
  y = jnp.asarray([[2.0, -2, 0, 2], [0, 5, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0]])
  ratios = uniformity.ratio(y)
  entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
  np.testing.assert_allclose(
      ratios, [1, 1, np.exp(entropy) / 2, np.nan], rtol=1e-6
  )


def draws():
  tokens = jnp.asarray(measured.TOKENS)
  scored = np.pad(measured.scored(), ((0, 0), (0, 1)))
  return uniformity.draw(tokens, jnp.asarray(scored), 4), scored


def test_draws_are_scored_distinct_and_determined_by_the_sequence():
  (positions, drawn), scored = draws()
  for at, known, row in zip(positions, drawn, scored, strict=True):
    assert known.sum() == min(4, row.sum())
    chosen = np.asarray(at)[np.asarray(known)]
    assert row[chosen].all() and len(set(chosen)) == len(chosen)
  tokens = jnp.asarray(measured.TOKENS)[::-1]
  other, _ = uniformity.draw(tokens, jnp.asarray(scored[::-1].copy()), 4)
  np.testing.assert_array_equal(other[::-1], positions)
  # Sequences have different positions.
  full = np.asarray(positions)[scored.sum(1) == scored.sum(1).max()]
  assert len(np.unique(full, axis=0)) == len(full)


def gradient(target):
  """Returns a function for the gradient of a token's centred logit."""

  @jax.jit
  def run(params, sequence, at):
    row = jnp.asarray(measured.TOKENS)[sequence][None]

    def logit(delta):
      hidden, _ = gemma.run(
          tiny.CONFIG,
          params,
          row,
          positions=packing.positions(row),
          segments=packing.segments(row),
          splice={target: lambda x: x.at[0, at].add(delta)},
          final_norm=True,
      )
      logits = gemma.unembed(tiny.CONFIG, params, hidden[0, at])
      return logits[row[0, at + 1]] - logits.mean()

    size = tiny.CONFIG.d_site(target.site)
    return jax.grad(logit)(jnp.zeros(size))

  return run


@pytest.mark.parametrize('name', ['random', 'transcoder'])
def test_r_l0_equals_one_backward_pass_per_token(name):
  (positions, drawn), _ = draws()
  latents, _, _ = measured.sae(name)
  member = measured.members()[measured.NAMES.index(name)]
  W_dec = np.asarray(member.params['W_dec'], np.float64)
  run, ratios = gradient(measured.taps(name)[1]), []
  for i, (row, known) in enumerate(zip(positions, drawn, strict=True)):
    for at in np.asarray(row)[np.asarray(known)]:
      g = np.asarray(run(tiny.model().params, i, at), np.float64)
      y = np.abs(latents[i, at] * (W_dec @ g))
      if not y.any():
        continue
      p = y[y > 0] / y.sum()
      ratios.append(np.exp(-(p * np.log(p)).sum()) / len(p))
  row = measured.row(name)
  assert row['tokens_r_l0'] == len(ratios) > 20
  np.testing.assert_allclose(row['r_l0'], np.mean(ratios), rtol=1e-4)
  assert 0 < row['r_l0_stderr'] < 0.2
