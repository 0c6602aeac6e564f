"""SAEs trained for a target L0 have it on held-out text."""

import json

import pytest

from jumprelu.run import demo, flags
from tests.local_processes import jumprelu

pytestmark = pytest.mark.slow


def test_a_target_l0_is_met_within_10_percent(tmp_path):
  run, release = tmp_path / 'run', tmp_path / 'release'
  jumprelu(
      'train',
      f'--out={run}',
      '--sites=resid_post',
      '--target_l0=20,50,100',
      # Only L0 is compared.
      '--eval.delta_loss_tokens=1',
      '--eval.pca_tokens=0',
      *(f'--{name}={flags.show(value)}' for name, value in demo.SUITE.items()),
  )
  jumprelu('release', f'--run={run}', f'--out={release}')
  rows = [json.loads(line) for line in (release / 'results.jsonl').open()]
  assert sorted(row['target_l0'] for row in rows) == [20, 50, 100]
  for row in rows:
    assert row['l0'] == pytest.approx(row['target_l0'], rel=0.10)
