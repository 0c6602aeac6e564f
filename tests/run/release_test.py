"""`jumprelu release`: a release of a real run, and refused input."""

import json
import pathlib
import types

import numpy as np
import pytest

from jumprelu.release import members, publish
from jumprelu.run import main
from jumprelu.training import config as config_lib
from jumprelu.training import load_run
from tests import local_processes, small_run


@pytest.mark.slow
def test_a_run_becomes_a_release_that_verifies(tmp_path):
  run, out = tmp_path / 'run', tmp_path / 'release'
  overrides = small_run.overrides(tmp_path, steps=8) | {
      'input_gain': False,
      'eval.tokens': 2048,
      'eval.delta_loss_tokens': 512,
      'eval.pca_tokens': 2048,
      'eval.lm_sequences': 8,
  }
  local_processes.finish(small_run.command(run, overrides))
  command = ('release', f'--run={run}')
  printed = local_processes.jumprelu(*command, f'--out={out}')
  assert '4 members, 256 latents' in printed
  assert f'{run}: checkpoint at step 8 of 8' in printed
  assert main.main(['verify', str(out)]) == 0
  rows = [
      json.loads(line)
      for line in (out / 'results.jsonl').read_text().splitlines()
  ]
  assert {row['site'] for row in rows} == {'resid_post', 'transcoder'}
  for row in rows:
    sae, params, config = members.load_member(out / row['path'])
    assert config['steps'] == 8
    # Of the 32 positions per row, BOS and the EOS of documents are dropped.
    assert 1500 < config['tokens_trained'] < 8 * 256
    assert config['tokens_trained'] == row['tokens_trained']
    assert config['input_gain'] == (False if sae.transcoder else None)
    frequency = np.load(out / row['path'] / 'firing_frequency.npy')
    # The sum of firing frequencies is the mean number of active latents.
    np.testing.assert_allclose(frequency.sum(), row['l0'], rtol=1e-4)
    with np.load(out / row['path'] / 'test_vectors.npz') as vectors:
      assert (vectors['latents'] > 0).any()
  assert 'without its\ngain' in (out / 'README.md').read_text()
  # A second release reuses the stored evaluation and has the same bytes.
  again = tmp_path / 'again'
  local_processes.jumprelu(*command, f'--out={again}')
  for path in out.rglob('*'):
    if path.is_file():
      assert (again / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_a_target_with_other_files_is_refused_before_the_evaluation(
    tmp_path, capsys, monkeypatch
):
  opened = types.SimpleNamespace(
      config=config_lib.resolve(),
      members=[types.SimpleNamespace(meta={'step': 4})],
  )
  monkeypatch.setattr(publish, 'open_run', lambda run: opened)
  monkeypatch.setattr(publish, 'identity', lambda run: 'its digest')
  monkeypatch.setattr(
      publish, 'evaluate_run', lambda run: pytest.fail('evaluated')
  )
  (tmp_path / 'thesis.tex').write_text('x')
  assert main.main(['release', '--run=a', f'--out={tmp_path}']) == 2
  output = capsys.readouterr()
  assert 'not a release; choose another --out' in output.err
  total = opened.config.steps
  assert f'a: checkpoint at step 4 of {total}' in output.out


def test_an_unfinished_run_is_refused_before_the_evaluation(
    tmp_path, capsys, monkeypatch
):
  config = config_lib.resolve()
  meta = {'step': 32, 'counts': {'step': 32}}
  member = load_run.TrainedMember(None, None, {}, None, 1.0, 1.0, meta)
  opened = publish.Run(
      pathlib.Path('runs/a'), config, [member], [], None, None, None
  )
  monkeypatch.setattr(publish, 'open_run', lambda run: opened)
  monkeypatch.setattr(publish, 'identity', lambda run: 'its digest')
  monkeypatch.setattr(
      publish, 'evaluate_run', lambda run: pytest.fail('evaluated')
  )
  out = tmp_path / 'release'
  assert main.main(['release', '--run=runs/a', f'--out={out}']) == 2
  error = capsys.readouterr().err
  assert f'runs/a: stopped at step 32 of {config.steps}' in error
  assert '--unfinished' in error and error.count('\n') == 1


@pytest.mark.parametrize(
    'flags, message, code',
    [
        ([], '--run is needed; --out is needed', 2),
        (['--run=nowhere', '--out=b'], 'nowhere', 66),
        (['--run=a', '--out=a'], 'must differ from --run', 2),
        (['--run=a', '--out=b', '--test_vectors=2'], 'test_vectors', 2),
    ],
)
def test_bad_flags_are_one_line(
    tmp_path, monkeypatch, capsys, flags, message, code
):
  monkeypatch.chdir(tmp_path)
  assert main.main(['release', *flags]) == code
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert not list(tmp_path.iterdir())
