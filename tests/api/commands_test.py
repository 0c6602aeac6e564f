"""Tests of the commands as functions, and of runs as suites."""

import json
import shutil

import pytest

import jumprelu
from tests.api import examples


# In this order, because each reads the files of the one before it.
@pytest.mark.parametrize(
    'name',
    [
        *('train_suite', 'read_metrics', 'write_release', 'verify_release'),
        *('evaluate_suite', 'collect_features'),
    ],
)
def test_the_examples_of_the_commands_run(name, workplace, run, monkeypatch):
  monkeypatch.chdir(workplace)
  if not (workplace / 'runs').exists():
    (workplace / 'runs').mkdir()
    (workplace / 'runs' / 'a').symlink_to(run)
  assert examples.run(name, {'jumprelu': jumprelu})


def test_members_of_a_run_have_the_l0_of_its_last_metrics(run):
  suite = jumprelu.load(run)
  lines = [json.loads(x) for x in (run / 'metrics.jsonl').open()]
  last = lines[-1]
  assert len(lines) > 1 and len(suite) == 3
  for group, names in last['members'].items():
    assert [suite[name].l0 for name in names] == last['groups'][group]['l0']
  sae = suite['resid_post', last['groups']['resid_post-64-jumprelu']['l0'][1]]
  assert sae.path == last['members']['resid_post-64-jumprelu'][1]
  assert repr(sae).endswith('in training)')
  assert 'last segment of training, not held-out text' in repr(suite)


def test_metrics_after_the_checkpoint_of_a_run_are_not_read(run, tmp_path):
  copy = shutil.copytree(run, tmp_path / 'run')
  before = {path: sae.l0 for path, sae in jumprelu.load(copy).items()}
  line = json.loads((copy / 'metrics.jsonl').read_text().splitlines()[-1])
  line['step'] += 2
  for metrics in line['groups'].values():
    metrics['l0'] = [0.0 for _ in metrics['l0']]
  with (copy / 'metrics.jsonl').open('a') as file:
    file.write(json.dumps(line) + '\n')
  assert {p: s.l0 for p, s in jumprelu.load(copy).items()} == before
  (copy / 'metrics.jsonl').unlink()
  assert {s.l0 for s in jumprelu.load(copy).values()} == {None}
