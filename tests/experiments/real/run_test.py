"""Parts of the real run resume at any point, with the same results."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest

from experiments.real import plan, run, suites
from jumprelu.run import main
from tests import small_run

_BLOCK = 256 * small_run.STEPS_A_BLOCK


@pytest.fixture(scope='module')
def scale(tmp_path_factory):
  """The real run's scale on the embedded model, with tiny numbers."""
  base = small_run.overrides(tmp_path_factory.mktemp('text'), steps=1)
  names = ('corpus.', 'stream.')
  small = {k: v for k, v in base.items() if k.startswith(names)}
  return dataclasses.replace(
      suites.gemma3_270m('gemma2_nano', base['data']),
      layer=0,
      tokens=3 * _BLOCK,
      site_tokens=2 * _BLOCK,
      width=64,
      narrow=32,
      ladder=(16, 32),
      target_l0=(4, 8, 16),
      seeds_l0=8,
      k=(8, 16),
      base=small
      | {
          'eval.tokens': 1024,
          'eval.delta_loss_tokens': 256,
          'eval.lm_sequences': 4,
          'eval.pca_tokens': 0,
      },
  )


def _run(scale, names, folder, *, stop_at=(), **kwargs):
  """Runs parts; `stop_at` has the numbers of the calls that should stop."""
  calls = 0

  def should_stop(number):
    nonlocal calls
    del number
    calls += 1
    return calls in stop_at

  run.run_parts(
      scale,
      suites.named(scale, names),
      work=folder / 'work',
      out=folder / 'out',
      should_stop=should_stop,
      **kwargs,
  )


def _rows(folder, name):
  with (folder / 'out' / f'{name}.csv').open(newline='') as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def whole(scale, tmp_path_factory):
  """The folder of a part that was never stopped."""
  folder = tmp_path_factory.mktemp('whole')
  _run(scale, ['jumprelu_targets'], folder)
  return folder


def test_a_row_names_its_text_and_has_both_fvus(whole):
  low, high = _rows(whole, 'jumprelu_targets')
  assert (low['target_l0'], high['target_l0']) == ('4', '16')
  assert {row['part'] for row in (low, high)} == {'jumprelu_targets'}
  assert int(low['training_tokens']) == 3 * _BLOCK
  unique = int(low['unique_tokens'])
  # Rows also hold BOS, EOS and padding.
  assert 0.8 < float(low['epochs']) / (3 * _BLOCK / unique) < 1
  for name in ('fvu', 'train_fvu', 'l0', 'train_l0'):
    assert float(high[name]) > 0
  assert float(high['delta_loss'])
  assert low['fvu'] != low['train_fvu']


# Calls of should_stop: one before each of the store's later blocks, then one
# per training segment.
@pytest.mark.parametrize('stop_at', [1, 2, 5, 9])
def test_a_stopped_part_resumes_with_the_same_results(
    stop_at, scale, whole, tmp_path
):
  name = 'jumprelu_targets'
  with pytest.raises(run.Stopped):
    _run(scale, [name], tmp_path, stop_at=[stop_at])
  assert not (tmp_path / 'out').exists()
  _run(scale, [name], tmp_path)
  assert _rows(tmp_path, name) == _rows(whole, name)


def test_finished_parts_are_skipped_until_their_config_changes(
    scale, whole, monkeypatch
):
  made = []
  monkeypatch.setattr(
      run, 'run_part', lambda scale, part, **_: made.append(part.name)
  )
  _run(scale, ['jumprelu_targets'], whole)
  assert not made
  more = dataclasses.replace(scale, tokens=4 * _BLOCK)
  _run(more, ['jumprelu_targets'], whole)
  assert made == ['jumprelu_targets']


def test_a_measurement_that_was_stopped_is_made_again(
    scale, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(run, 'measure', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      _run(scale, ['topk_16'], tmp_path)
  with monkeypatch.context() as patch:
    # Neither store nor training is repeated.
    patch.setattr(run, 'fill_store', lambda *_, **__: 1 / 0)
    _run(scale, ['topk_16'], tmp_path)
  (row,) = _rows(tmp_path, 'topk_16')
  assert (row['variant'], row['target_l0']) == ('topk', '16')


def test_a_store_is_shared_and_deleted_after_its_last_part(
    scale, tmp_path, monkeypatch
):
  stores = tmp_path / 'work' / 'stores'
  seen = []

  def make(scale, part, *, work, **_):
    run._store(work, part.store).mkdir(parents=True, exist_ok=True)
    seen.append(sorted(path.name for path in stores.iterdir()))

  monkeypatch.setattr(run, 'run_part', make)
  names = ['half_topk', 'ladder', 'mlp_out']
  _run(scale, names, tmp_path, delete_stores=True)
  assert seen == [['residual'], ['residual'], ['sites']]
  assert not list(stores.iterdir())


@pytest.mark.slow  # Each part is compiled.
def test_parts_of_all_kinds_end_with_a_csv_file(scale, tmp_path, capsys):
  names = ['gated_0', 'batch_topk_8', 'ladder', 'attn_heads', 'transcoder']
  _run(scale, names, tmp_path)
  rows = {name: _rows(tmp_path, name) for name in names}
  assert {row['site'] for name in names for row in rows[name]} == {
      'resid_post', 'attn_heads', 'transcoder',
  }  # fmt: skip
  costs = {cost.name: cost for cost in plan.costs_of(scale, _Rates())}
  assert all(len(rows[name]) == costs[name].members for name in names)
  assert 'hours left' in capsys.readouterr().err
  assert all(float(row['pursuit_fvu']) > 0 for row in rows['ladder'])
  pairs = {
      (r['narrow_width'], r['wide_width'])
      for r in _rows(tmp_path, 'ladder.splitting')
  }
  assert pairs == {('16', '32')}


class _Rates(dict):
  """Rates of 1 GFLOP per second for all variants."""

  def __missing__(self, name):
    return 1e9


def test_faults_are_one_line(tmp_path, capsys):
  def code(*argv):
    return main.run_command(run, 'run', argv)

  model = ('--model=gemma2_nano', '--data=stdlib', '--layer=2')
  work = f'--work={tmp_path}'
  assert code('all', work) == 2
  assert code('all', *model) == 2
  assert code('no_such', work, *model) == 2
  assert code(work, *model) == 2
  assert code('all', work, *model, '--config=stream.batch') == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 5
  assert '--model is needed; --data is needed' in lines[0]
  assert "'no_such'; known: jumprelu_coefficients" in lines[2]


@pytest.mark.slow  # Two starts of the command.
def test_the_command_saves_on_sigterm_and_resumes(scale, tmp_path):
  config = {**scale.base, 'checkpoint.every_blocks': 1000}
  tokens = 100 * _BLOCK
  command = [
      sys.executable, '-m', 'experiments.real.run', 'half_topk',
      '--model=gemma2_nano', f'--data={scale.data}', '--layer=0',
      '--width=64', '--narrow=32', f'--tokens={tokens}',
      f'--work={tmp_path / "work"}', f'--out={tmp_path / "out"}',
      '--config=' + ','.join(f'{k}={v}' for k, v in config.items()),
  ]  # fmt: skip
  folder = tmp_path / 'work/half_topk/run'
  with subprocess.Popen(
      command, stderr=subprocess.PIPE, text=True, bufsize=1
  ) as process:
    deadline = time.monotonic() + 240
    while (
        not (folder / 'metrics.jsonl').exists() and time.monotonic() < deadline
    ):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
  assert process.returncode == 42, errors
  assert 'resumes' in errors.splitlines()[-1]
  saved = json.loads((folder / 'STATUS.json').read_text())
  assert saved['state'] == 'preempted'
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'out' / 'half_topk.csv').exists()
