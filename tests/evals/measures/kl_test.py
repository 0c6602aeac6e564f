"""KL divergences, against float64 logits of full passes."""

import numpy as np
import pytest

from tests.evals import measured


def divergence(logits):
  p, q = map(measured.log_softmax, (measured.clean()[0], logits))
  return (np.exp(p) * (p - q)).sum(-1)


@pytest.mark.parametrize('name', ['random', 'transcoder'])
def test_kl_equals_plain_numpy(name):
  _, reconstruction, y = measured.sae(name)
  row, keep = measured.row(name), measured.KEEP
  kl = divergence(measured.spliced(name, reconstruction))[keep].mean()
  zero = divergence(measured.spliced(name, np.zeros_like(y)))[keep].mean()
  assert kl > 0 and row['tokens_kl'] == keep.sum()
  np.testing.assert_allclose(row['kl'], kl, rtol=1e-3)
  np.testing.assert_allclose(row['kl_zero_ablation'], zero, rtol=1e-3)
  np.testing.assert_allclose(row['kl_recovered'], 1 - kl / zero, rtol=1e-3)
  assert 0 < row['kl_stderr'] < row['kl']
