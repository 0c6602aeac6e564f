"""SAEBench's metrics, against their definitions in plain NumPy."""

import numpy as np
import pytest

from tests.evals import measured
from tests.evals.measures import kl_test


def expected(name, size=4):
  """Returns the metrics of the evaluation's batches of `size` rows."""
  latents, xhat, x = measured.sae(name)
  # The order in which an evaluation reads the rows.
  order = np.random.RandomState(0).permutation(len(x))
  keep = measured.KEEP
  per_token, by_batch = [], []
  for start in range(0, len(x), size):
    rows = order[start : start + size]
    a, b, f = x[rows][keep[rows]], xhat[rows][keep[rows]], latents[rows]
    f = f[keep[rows]]
    error = np.square(a - b).sum(1)
    norm, norm_out = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    per_token.append(
        {
            'l0': (f != 0).sum(1),
            'l1': f.sum(1),
            'l2_norm_in': norm,
            'l2_norm_out': norm_out,
            'l2_ratio': norm_out / norm,
            'cossim': (a * b).sum(1) / norm / norm_out,
            'mse': error / len(a),
            'explained_variance_legacy': 1
            - error / np.square(a - a.mean(0)).sum(1),
        }
    )
    bias = np.square(b).sum(1).mean() / (a * b).sum(1).mean()
    by_batch.append((np.square(a).sum(1).mean(), error.mean(), bias))
  metrics = {
      key: np.concatenate([part[key] for part in per_token]).mean()
      for key in per_token[0]
  }
  square, residual, bias = np.mean(by_batch, 0)
  metrics['relative_reconstruction_bias'] = bias
  mean_square = square / x.shape[-1]
  metrics['explained_variance'] = 1 - residual / (square - mean_square**2)
  everywhere = np.ones_like(keep)
  logits = {
      'sae': measured.spliced(name, xhat),
      'ablation': measured.spliced(name, np.zeros_like(x), everywhere),
  }
  sources = keep[:, :-1]
  clean = measured.losses(measured.clean()[0])[sources].mean()
  ce = {k: measured.losses(v)[sources].mean() for k, v in logits.items()}
  kl = {k: kl_test.divergence(v)[keep].mean() for k, v in logits.items()}
  return metrics | {
      'ce_loss_without_sae': clean,
      'ce_loss_with_sae': ce['sae'],
      'ce_loss_with_ablation': ce['ablation'],
      'ce_loss_score': (ce['ablation'] - ce['sae']) / (ce['ablation'] - clean),
      'kl_div_with_sae': kl['sae'],
      'kl_div_with_ablation': kl['ablation'],
      'kl_div_score': (kl['ablation'] - kl['sae']) / kl['ablation'],
  }


@pytest.mark.parametrize('name', ['random', 'transcoder'])
def test_every_metric_equals_its_definition(name):
  metrics, wanted = measured.row(name), expected(name)
  names = {k for k in metrics if k.startswith('saebench_')}
  assert names == {f'saebench_{key}' for key in wanted}
  for key, value in wanted.items():
    np.testing.assert_allclose(
        metrics[f'saebench_{key}'], value, rtol=2e-4, err_msg=key
    )


def test_its_explained_variance_and_ablation_differ_from_ours():
  metrics = measured.row('random')
  assert abs(1 - metrics['fvu'] - metrics['saebench_explained_variance']) > 0.01
  # SAEBench's ablation also zeroes BOS and padding.
  assert metrics['saebench_kl_div_with_ablation'] != metrics['kl_zero_ablation']
