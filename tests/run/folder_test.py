"""A language model from a Hugging Face folder, from training to a release."""

import json

import numpy as np
import pytest

from jumprelu.run import main
from tests import local_processes, small_run
from tests.lm import huggingface_folders

STEPS = 2 * small_run.STEPS_A_BLOCK

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('folder')


@pytest.fixture(scope='module')
def model(folder):
  """Returns a tiny random model like the 27B, with a tokenizer for text."""
  config = huggingface_folders.CONFIGS['27b'] | {'vocab_size': 4096}
  path = huggingface_folders.write(folder / 'my_gemma', config, files=2)
  huggingface_folders.add_tokenizer(path)
  return path


@pytest.fixture(scope='module')
def config(folder, model):
  return small_run.overrides(folder, steps=STEPS) | {
      'model': model,
      'layer': 1,
      'sites': ('attn_heads', 'transcoder'),
      'eval.tokens': 2048,
      'eval.delta_loss_tokens': 1024,
      'eval.pca_tokens': 1024,
  }


def release(run, out):
  """Releases and verifies a run; returns the rows of its results."""
  assert main.launch('release', [f'--run={run}', f'--out={out}']) == 0
  assert main.launch('verify', [str(out)]) == 0
  lines = (out / 'results.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def train(out, config, **kwargs):
  with local_processes.run(small_run.command(out, config), **kwargs) as child:
    assert child.exit_code() == 0, child.output


def train_together(out, config):
  argv = small_run.command(out, config)
  with local_processes.run_together(argv) as children:
    codes = [child.exit_code() for child in children]
    assert codes == [0, 0], children[0].output + children[1].output


def assert_near(ours, theirs):
  assert ours.keys() == theirs.keys()
  for name, x in ours.items():
    tolerance = 1e-5 * np.abs(theirs[name]).max()
    np.testing.assert_allclose(x, theirs[name], rtol=0, atol=tolerance)


def test_one_device_eight_and_two_processes_release_the_same_saes(
    folder, model, config
):
  train(folder / 'one', config, devices=1)
  train(folder / 'eight', config, devices=8)
  train_together(folder / 'two', config)
  names = ('one', 'eight', 'two')
  rows = {n: release(folder / n, folder / f'release_{n}') for n in names}
  state = small_run.arrays(folder / 'one', STEPS)
  for name in names[1:]:
    assert_near(small_run.arrays(folder / name, STEPS), state)
    assert len(rows[name]) == len(rows['one']) == 4
    for ours, theirs in zip(rows[name], rows['one'], strict=True):
      with (
          np.load(
              folder / f'release_{name}' / ours['path'] / 'params.npz'
          ) as a,
          np.load(folder / 'release_one' / theirs['path'] / 'params.npz') as b,
      ):
        assert_near(dict(a), dict(b))
      assert ours['model'] == theirs['model'] == 'my_gemma'
      assert ours['l0'] == pytest.approx(theirs['l0'], rel=1e-3)
      assert 0 < ours['l0'] < 64 and np.isfinite(ours['delta_loss'])
  config_json = json.loads((folder / 'one' / 'config.json').read_text())
  assert config_json['model'] == str(model)
