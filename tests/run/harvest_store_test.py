"""`jumprelu harvest --store` and `jumprelu train --store`, as commands."""

import json

import numpy as np
import pytest

from jumprelu.activations.store import record
from jumprelu.run import main, preemption
from tests import local_processes, small_run, small_store

# A block and a half.
STEPS = 12
_NOT_OF_A_STREAM = ('widths', 'sparsity', 'checkpoint.', 'optim.', 'sae.')

# Trains and prints which libraries of the language model were imported.
_LIGHT = """
import sys
from jumprelu.run import main
code = main.main(sys.argv[1:])
heavy = {'gemma', 'kauldron', 'tensorflow'} & set(sys.modules)
print('loaded', sorted(heavy))
sys.exit(code)
"""


def harvest_flags(store, config):
  flags = {
      name: value
      for name, value in config.items()
      if not name.startswith(_NOT_OF_A_STREAM)
  }
  _, _, _, *rest = small_run.command('unused', flags | {'store': store})
  return [flag for flag in rest if flag != '--out=unused']


@pytest.mark.slow
def test_an_interrupted_store_is_resumed_and_completed(
    tmp_path, capsys, monkeypatch
):
  config = small_run.overrides(tmp_path, steps=STEPS)
  flags = harvest_flags(tmp_path / 'store', config)
  with monkeypatch.context() as patch:
    patch.setattr(
        preemption.Preemption, 'reached', lambda self, step: step == 1
    )
    assert main.launch('harvest', flags) == preemption.EXIT_PREEMPTED
  error = capsys.readouterr().err
  phases = (
      'reading text', 'loading and checking', 'estimating the scales',
      '2 blocks of 2 to write', 'compiling, then writing',
  )  # fmt: skip
  places = [error.find(phase) for phase in phases]
  assert places[0] >= 0 and places == sorted(places)
  assert 'run the same command to resume' in error
  assert main.launch('harvest', flags) == 0
  captured = capsys.readouterr()
  assert '1 block of 2 to write' in captured.err
  assert 's to compute' in captured.err
  assert 'streaming is cheaper' in captured.err
  assert 'store: complete, 2 blocks' in captured.out
  manifest, geometry, blocks = record.read_manifest(tmp_path / 'store')
  assert manifest['rows'] == 2 * geometry.block_rows == 2 * 256 * 8
  assert 0 < manifest['kept'] < manifest['rows']
  assert len(manifest['lm_digest']) == len(manifest['tokenizer_sha256']) == 64
  assert [block['block'] for block in blocks] == [0, 1]


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--store=s'], '--layer or --layers is needed'),
        (
            ['--store=s', '--layer=1', '--out=a.npz'],
            '--out cannot be combined with --store',
        ),
        (
            ['--layer=1', '--out=a.npz', '--text=a', '--tokens=9'],
            '--tokens needs --store',
        ),
        (['--store=s', '--layer=1', '--sites=mlp'], "sites: 'mlp' is unknown"),
        (['--store=s', '--layer=1', '--stream.batch=7'], 'stream.batch=7'),
    ],
)
def test_bad_flags_are_one_line(tmp_path, monkeypatch, capsys, flags, words):
  monkeypatch.chdir(tmp_path)
  assert main.launch('harvest', flags) == 2
  error = capsys.readouterr().err
  assert words in error and error.count('\n') == 1
  assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('stores')


@pytest.fixture(scope='module')
def config(folder):
  return small_run.overrides(folder, steps=STEPS)


@pytest.fixture(scope='module')
def stored(folder, config):
  """Returns a store that one process with two devices wrote."""
  path = folder / 'store'
  argv = ['-m', 'jumprelu.run.main', 'harvest', *harvest_flags(path, config)]
  with local_processes.run(argv, devices=2) as child:
    assert child.exit_code() == 0, child.output
  return path


@pytest.fixture(scope='module')
def streamed(folder, config):
  """Returns a run that was trained without a store."""
  out = folder / 'streamed'
  with local_processes.run(small_run.command(out, config), devices=2) as child:
    assert child.exit_code() == 0, child.output
  return out


@pytest.mark.slow
def test_training_from_a_store_equals_streaming_without_the_model(
    tmp_path, config, stored, streamed
):
  out = tmp_path / 'run'
  _, _, *args = small_run.command(out, config, store=stored)
  argv = ['-c', _LIGHT, *args]
  with local_processes.run(argv, devices=2) as child:
    assert child.exit_code() == 0, child.output
  assert 'loaded []' in child.output
  small_run.assert_same_bits(out, streamed, STEPS)
  assert small_run.metrics(out) == small_run.metrics(streamed)
  # The run can also be resumed without the store, because the bits are equal.
  argv = small_run.command(out, config)
  with local_processes.run(argv, devices=2) as child:
    assert child.exit_code() == 0, child.output


@pytest.mark.slow
def test_two_processes_write_and_read_the_store_of_one_process(
    tmp_path, config, stored, streamed
):
  path = tmp_path / 'store'
  argv = ['-m', 'jumprelu.run.main', 'harvest', *harvest_flags(path, config)]
  with local_processes.run_together(argv) as children:
    codes = [child.exit_code() for child in children]
    assert codes == [0, 0], children[0].output + children[1].output
  ours, theirs = small_store.files(path), small_store.files(stored)
  # The manifests differ, because they hold the number of processes.
  manifests = [json.loads(x.pop('manifest.json')) for x in (ours, theirs)]
  assert ours == theirs
  assert manifests[0]['blocks_sha256'] == manifests[1]['blocks_sha256']

  out = tmp_path / 'run'
  argv = small_run.command(out, config, store=path)
  with local_processes.run_together(argv) as children:
    codes = [child.exit_code() for child in children]
    assert codes == [0, 0], children[0].output + children[1].output
  arrays, wanted = small_run.arrays(out, STEPS), small_run.arrays(
      streamed, STEPS
  )
  for name, x in arrays.items():
    tolerance = 1e-5 * np.abs(wanted[name]).max()
    np.testing.assert_allclose(x, wanted[name], rtol=0, atol=tolerance)
