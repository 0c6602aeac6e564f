"""The sparse backward pass: which blocks are computed by dense products."""

import numpy as np

from jumprelu.ops import latent_major, row_gather
from tests.ops import one_batch


def _frequent(case):
  """Returns which blocks of a case are frequent, by falling frequency."""
  batch = one_batch.make(**one_batch.CASES[case]).batch
  active = np.asarray(batch.pre_acts) > np.asarray(batch.threshold)
  count = np.sort(active.sum(axis=0))[::-1]
  size = row_gather.largest_divisor(len(count), latent_major._SIZE)
  share = count.reshape(-1, size).mean(axis=1) / len(active)
  return share > latent_major._FREQUENT


def test_with_a_power_law_some_latents_are_frequent():
  frequent = _frequent('Zipf frequencies')
  assert frequent.any() and not frequent.all()


def test_at_an_l0_of_1_no_latents_are_frequent():
  assert not _frequent('an L0 of 1').any()
