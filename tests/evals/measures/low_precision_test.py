"""An SAE in bfloat16, against explicit rounding in NumPy."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jumprelu.evals import jitted
from jumprelu.evals.measures import low_precision
from tests.evals import measured


def rounded(x):
  return np.asarray(x, np.float32).astype(ml_dtypes.bfloat16)


def reconstruct(name):
  """Returns our reconstruction, and a float64 one with explicit rounding."""
  source, target = measured.taps(name)
  member, values = (
      measured.members()[measured.NAMES.index(name)],
      measured.clean()[1],
  )
  params = {k: jnp.asarray(v) for k, v in member.params.items()}
  ours = jitted.reconstruct(
      low_precision.rounded(params),
      values[source],
      values[target],
      keep=jnp.asarray(measured.KEEP),
      sae=member.sae,
      dtype=jnp.bfloat16,
  )
  p = {k: rounded(v).astype(np.float64) for k, v in member.params.items()}
  pre_acts = rounded(values[source]).astype(np.float64) @ p['W_enc']
  pre_acts += p['b_enc']
  latents = rounded(np.where(pre_acts > p['threshold'], pre_acts, 0))
  return ours, latents.astype(np.float64) @ p['W_dec'] + p['b_dec']


def test_weights_inputs_and_latents_are_rounded():
  ours, wanted = reconstruct('random')
  _, exact, _ = measured.sae('random')
  keep = measured.KEEP
  # Values close to a rounding boundary may be rounded the other way.
  near = np.isclose(ours[keep], wanted[keep], rtol=1e-4, atol=1e-4)
  assert near.mean() > 0.95
  assert (
      np.isclose(exact[keep], wanted[keep], rtol=1e-4, atol=1e-4).mean() < 0.5
  )


def test_losses_are_those_of_the_rounded_reconstruction():
  ours, _ = reconstruct('random')
  _, exact, _ = measured.sae('random')
  clean, small, full = (
      measured.losses(x)[measured.scored()]
      for x in (
          measured.clean()[0],
          measured.spliced('random', ours),
          measured.spliced('random', exact),
      )
  )
  row = measured.row('random')
  np.testing.assert_allclose(
      row['delta_loss_bfloat16'], (small - clean).mean(), rtol=1e-3
  )
  np.testing.assert_allclose(
      row['bfloat16_cost'], (small - full).mean(), rtol=2e-2, atol=2e-6
  )
  np.testing.assert_allclose(
      row['delta_loss'] + row['bfloat16_cost'],
      row['delta_loss_bfloat16'],
      rtol=1e-4,
  )
  assert row['bfloat16_cost'] != 0 and row['bfloat16_cost_stderr'] > 0
