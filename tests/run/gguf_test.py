"""A language model from a GGUF file, in every command that reads a model."""

import json

import numpy as np
import pytest

from jumprelu.run import main
from tests import small_run
from tests.lm import gguf_files, huggingface_folders

STEPS = 2 * small_run.STEPS_A_BLOCK

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('gguf')


@pytest.fixture(scope='module')
def models(folder):
  """Returns a tiny random Gemma 3 as a file and as a folder, by format."""
  config = gguf_files.CONFIGS['gemma3']
  file = gguf_files.write(folder / 'tiny-F32.gguf', config)
  path = huggingface_folders.write(folder / 'tiny', config)
  huggingface_folders.add_tokenizer(path)
  return {'gguf': file, 'huggingface': path}


def launch(command, *argv, code=0):
  assert main.launch(command, [str(arg) for arg in argv]) == code


@pytest.fixture(scope='module')
def releases(folder, models):
  """Returns a release per format, trained with the same flags."""
  config = small_run.overrides(folder, steps=STEPS) | {
      'layer': 6,
      'sites': ('attn_heads', 'transcoder'),
      'eval.tokens': 2048,
      'eval.delta_loss_tokens': 1024,
      'eval.pca_tokens': 1024,
  }
  result = {}
  for name, model in models.items():
    run, out = folder / f'run_{name}', folder / f'release_{name}'
    argv = small_run.command(run, config, model=model)[3:]
    launch('train', *argv)
    launch('release', f'--run={run}', f'--out={out}')
    launch('verify', out)
    result[name] = out
  return result


def rows(release):
  lines = (release / 'results.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_saes_of_a_file_equal_those_of_the_same_model_in_a_folder(
    folder, models, releases
):
  ours, theirs = (rows(releases[name]) for name in ('gguf', 'huggingface'))
  assert len(ours) == len(theirs) == 4
  for row, other in zip(ours, theirs, strict=True):
    assert row['model'] == 'tiny-F32' and other['model'] == 'tiny'
    assert row['l0'] == other['l0'] > 0
    assert row['delta_loss'] == other['delta_loss']
    with (
        np.load(releases['gguf'] / row['path'] / 'params.npz') as a,
        np.load(releases['huggingface'] / other['path'] / 'params.npz') as b,
    ):
      for key in a.files:
        np.testing.assert_array_equal(a[key], b[key])
  config = json.loads((folder / 'run_gguf' / 'config.json').read_text())
  assert config['model'] == str(models['gguf'])


def test_a_file_is_read_by_every_command(folder, models, releases, capsys):
  release, model = releases['gguf'], f'--model={models["gguf"]}'
  text = folder / 'text' / '0.txt'
  launch('plan', model, '--layer=6', '--widths=64', '--tokens=1_000_000')
  assert 'SAE parameters' in capsys.readouterr().out
  out = folder / 'acts.npz'
  launch('harvest', model, '--layer=6', f'--text={text}', f'--out={out}')
  assert out.is_file()
  # A release does not contain paths of models and texts.
  read = (f'--release={release}', model, f'--data={text.parent}')
  out = folder / 'measured.jsonl'
  sizes = ('--eval.tokens=2048', '--eval.delta_loss_tokens=1024')
  launch('evaluate', *read, *sizes, '--eval.pca_tokens=1024', f'--out={out}')
  assert out.read_text().count('\n') == 4
  out, page = folder / 'features', folder / 'page'
  launch('features', *read, '--tokens=1024', f'--out={out}')
  explored = ('explore', f'--release={release}', f'--features={out}')
  launch(*explored, f'--out={page}')
  assert (page / 'index.html').is_file()
  capsys.readouterr()
  launch('features', read[0], f'--out={out}2', code=66)
  error = capsys.readouterr().err
  assert 'tiny-F32.gguf: no such file; pass the path of a GGUF file' in error
