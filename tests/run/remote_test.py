"""A run in remote storage: trained, listed, evaluated and released."""

import pytest

from jumprelu.release import publish
from jumprelu.run import main
from jumprelu.training import checkpoint, checkpoint_reading, load_run, train
from jumprelu.training import config as config_lib
from tests import fake_bucket, small_run
from tests.small_state import META, bits, make_state, names, save

_OUT = 'gs://bucket/suites/run'


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """Yields the folder that backs gs://bucket; it is not the current one."""
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  with fake_bucket.mounted(tmp_path / 'storage'):
    yield tmp_path / 'storage' / 'bucket'
  # A path without its scheme would create a folder called 'gs:'.
  assert not list((tmp_path / 'here').iterdir())


def _config(folder):
  return config_lib.resolve(
      small_run.overrides(folder, steps=8)
      | {
          'sites': ('mlp_out',),
          'sparsity_coefficients': ('1e-3',),
          'eval.tokens': 1024,
          'eval.delta_loss_tokens': 256,
          'eval.pca_tokens': 1024,
          'eval.lm_sequences': 8,
      }
  )


@pytest.mark.slow
def test_a_remote_run_is_trained_listed_evaluated_and_released(
    tmp_path, bucket, capsys, monkeypatch
):
  assert train.train(_config(tmp_path), _OUT) == train.DONE
  assert (bucket / 'suites' / 'run' / 'checkpoints' / '8').is_dir()
  assert main.main(['status', 'gs://bucket/suites']) == 0
  listed = capsys.readouterr().out.splitlines()
  assert listed[1].split()[:4] == [_OUT, 'done', '8', '8']
  # The evaluation is stored in the run and reused by the second release.
  release = ['release', f'--run={_OUT}', f'--out={tmp_path / "release"}']
  assert main.main(release) == 0
  assert f'{_OUT}: checkpoint at step 8 of 8' in capsys.readouterr().out
  files = names(bucket / 'suites' / 'run' / 'evaluation')
  assert {'meta.json', 'results.jsonl', 'frequencies.npz'} < set(files)
  monkeypatch.setattr(
      publish, 'evaluate_members', lambda run: pytest.fail('evaluated again')
  )
  assert main.main(release) == 0
  assert main.main(['verify', str(tmp_path / 'release')]) == 0
  assert load_run.load_suite(_OUT)[0].meta['step'] == 8


def test_a_save_killed_in_remote_storage_is_no_checkpoint(bucket):
  # In remote storage a save is written in place, without a temporary name.
  save('gs://bucket/run', 5, 10)
  (bucket / 'run' / '10' / 'commit_success.txt').unlink()
  restored = checkpoint_reading.restore('gs://bucket/run', make_state(0))
  assert restored.meta == {**META, 'step': 5} and not restored.damaged
  assert names(bucket / 'run') == ['10', '5']
  with checkpoint.Checkpointer(
      'gs://bucket/run', checkpoint.Config()
  ) as writer:
    assert names(bucket / 'run') == ['5']
    writer.save(10, make_state(10), meta=META)
  restored = checkpoint_reading.restore('gs://bucket/run', make_state(0))
  assert bits(restored.state) == bits(make_state(10))


def test_a_first_save_that_is_unfinished_is_no_checkpoint_yet(bucket):
  save('gs://bucket/run', 5)
  (bucket / 'run' / '5' / 'commit_success.txt').unlink()
  assert checkpoint_reading.restore('gs://bucket/run', make_state(0)) is None


@pytest.mark.parametrize(
    'arguments, flag',
    [
        (['release', '--run=gs://bucket/run', '--out=gs://bucket/r'], '--out'),
        (['evaluate', '--release=r', '--out=gs://bucket/r.jsonl'], '--out'),
        (['evaluate', '--release=gs://bucket/r', '--out=r.jsonl'], '--release'),
    ],
)
def test_releases_and_results_are_local(bucket, capsys, arguments, flag):
  assert main.main(arguments) == 2
  error = capsys.readouterr().err
  assert f'{flag}=gs://bucket/r' in error and 'must be a local path' in error
  assert error.count('\n') == 1


@pytest.mark.parametrize('command', ['release', 'status'])
def test_a_remote_run_that_is_missing_is_named(bucket, capsys, command):
  flags = ['--run=gs://bucket/none', '--out=r'] if command == 'release' else []
  arguments = [command, *(flags or ['gs://bucket/none'])]
  assert main.main(arguments) == 66
  words = 'no run' if command == 'release' else 'neither a run'
  assert f'gs://bucket/none: {words} directory' in capsys.readouterr().err
