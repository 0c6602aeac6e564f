"""Curves of a page are those of the run's metrics."""

import json

from jumprelu.explore import training_curves
from tests import toy_run


def test_each_released_member_has_its_own_curve(tmp_path):
  toy_run.run(tmp_path)
  record = json.loads((tmp_path / 'suite.json').read_text())
  group = 'resid_post-48-jumprelu'
  members = [m for m in record['members'] if m['group'] == group]
  results = [m | {'path': f'p{i}'} for i, m in enumerate(members)]
  other = results[0] | {'seed': 7, 'path': 'of another run'}
  curves = training_curves.read(tmp_path, [*reversed(results), other])
  assert [c['member'] for c in curves] == ['p1', 'p0']
  lines = [
      json.loads(line)
      for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ]
  for curve, index in zip(curves, (1, 0), strict=True):
    groups = [line['groups'][group] for line in lines]
    series = curve['series']
    assert series['positions'] == [line['tokens_trained'] for line in lines]
    assert series['l0'] == [group['l0'][index] for group in groups]
    assert series['dead'] == [group['dead_share'][index] for group in groups]
    assert series['target_l0'] is None
