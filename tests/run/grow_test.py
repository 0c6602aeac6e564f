"""The real commands that extend a run and add members to it."""

import json
import shutil

import pytest

from jumprelu.run import main, status
from tests import local_processes, small_run

# Two blocks, and five after the extension.
STEPS, MORE = 16, 40

pytestmark = pytest.mark.slow

_SCHEDULES = {
    'optim.lr_warmup_steps': 'none',
    'optim.lr_warmup_fraction': 0.1,
    'optim.sparsity_warmup_steps': 'none',
    'optim.sparsity_warmup_fraction': 0.2,
    'optim.lr_decay': 0.4,
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('grow')


def _train(out, config=None, *flags):
  argv = small_run.command(out, config or {}) + list(flags)
  with local_processes.run(argv, devices=2) as child:
    assert child.exit_code() == 0, child.output
    return child.output


def test_a_run_grows_and_is_released_as_a_whole(folder):
  config = small_run.overrides(folder, steps=STEPS) | _SCHEDULES
  grown, ordinary = folder / 'grown', folder / 'ordinary'
  _train(grown, config)
  # Other flags are those of the run, and the text has moved.
  moved = folder / 'elsewhere' / 'text'
  shutil.copytree(folder / 'text', moved)
  flags = f'--tokens={256 * MORE}', f'--data={moved}'
  output = _train(grown, None, '--extend', *flags)
  assert 'from 4,096 to 10,240 tokens, at step 8' in output
  _train(grown, None, '--add', '--seeds=1', '--sites=transcoder')
  assert 'done' in _train(grown, None, '--extend', *flags)

  longer = {
      'tokens': 256 * MORE,
      'optim.lr_warmup_fraction': 0.1 * STEPS / MORE,
      'optim.sparsity_warmup_fraction': 0.2 * STEPS / MORE,
  }
  _train(ordinary, config | longer)
  small_run.assert_same_bits(grown, ordinary, MORE)
  assert small_run.metrics(grown) == small_run.metrics(ordinary)

  runs = status.find([str(grown)])
  assert [run.name for run in runs] == ['grown', '1']
  release = folder / 'release'
  argv = ['release', f'--run={grown}', f'--out={release}', '--test_vectors=8']
  assert main.main([*argv, '--debug']) == 0
  suite = json.loads((release / 'suite.json').read_text())
  configs = [
      json.loads((release / member['path'] / 'config.json').read_text())
      for member in suite['members']
  ]
  assert [config['seed'] for config in configs] == [0, 0, 0, 0, 1, 1]
  assert configs[-1]['training']['seeds'] == [1]
  card = (release / 'README.md').read_text()
  assert '--add' in card
  assert main.main(['verify', str(release)]) == 0
