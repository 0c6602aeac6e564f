"""One, two and four processes read the same tokens and write the same rows."""

import json
import shutil

import numpy as np
import pytest

from jumprelu.run import preemption
from tests import local_processes, nano_release, small_run

# One and a half blocks; four processes stop inside the second block.
STEPS, STOP = 12, 10

pytestmark = pytest.mark.slow

# The real command, with a patch that prints which tokens each step reads: for
# each logical shard on local devices, one CRC per step of the shuffled ids.
_PRINTING = """
import json, sys, zlib
import jax
import numpy as np
from jumprelu.activations import stream
from jumprelu.run import main, preemption

make = stream.Stream.__init__
BATCH = 256


def print_ids(index, tokens, order):
  shards, slots = order.shape
  rows = {}
  for shard in tokens.addressable_shards:
    first = shard.index[0].indices(tokens.shape[0])[0]
    first = first * tokens.shape[1] // slots
    data = np.asarray(shard.data).reshape(-1, slots)
    rows |= {first + n: row for n, row in enumerate(data)}
  for shard in order.addressable_shards:
    first = shard.index[0].indices(shards)[0]
    for n, at in enumerate(np.asarray(shard.data), first):
      ids = rows[n][at].reshape(-1, BATCH // shards)
      line = [int(index), n, [zlib.crc32(x.tobytes()) for x in ids]]
      print('ids', json.dumps(line), flush=True)


def printing_init(self, *args, **kwargs):
  make(self, *args, **kwargs)
  plain = self._block

  def block(params, tokens, index, *scales):
    result = plain(params, tokens, index, *scales)
    with jax.transfer_guard('allow'):
      print_ids(np.asarray(index.addressable_data(0)), tokens, result.order)
    return result

  self._block = block


stream.Stream.__init__ = printing_init
stop = STOP
preemption.Preemption.reached = lambda self, step: step >= stop
sys.exit(main.main(sys.argv[1:]))
"""


def train(out, config, *, processes, devices, stop=STEPS):
  """Trains; returns {(block, shard): [CRC of each step]}."""
  _, _, *args = small_run.command(out, config)
  argv = ['-c', _PRINTING.replace('STOP', str(stop)), *args]
  code = 0 if stop == STEPS else preemption.EXIT_PREEMPTED
  with local_processes.run_together(
      argv, processes=processes, devices=devices
  ) as children:
    codes = [child.exit_code() for child in children]
    outputs = [child.output for child in children]
  assert codes == [code] * processes, '\n'.join(outputs)
  crcs_by_shard = {}
  for line in '\n'.join(outputs).splitlines():
    # Other threads may have written to the start of the line.
    _, mark, text = line.partition('ids [')
    if mark:
      block, shard, crcs = json.loads('[' + text)
      crcs_by_shard.setdefault((block, shard), crcs)
      assert crcs_by_shard[block, shard] == crcs
  return crcs_by_shard


def assert_near(out, other, step):
  ours, theirs = small_run.arrays(out, step), small_run.arrays(other, step)
  assert ours.keys() == theirs.keys() and len(ours) > 10
  for name, x in ours.items():
    tolerance = 1e-5 * np.abs(theirs[name]).max()
    np.testing.assert_allclose(x, theirs[name], rtol=0, atol=tolerance)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('processes')


@pytest.fixture(scope='module')
def config(folder):
  return small_run.overrides(folder, steps=STEPS)


@pytest.fixture(scope='module')
def single(folder, config):
  out = folder / 'single'
  return out, train(out, config, processes=1, devices=1)


@pytest.fixture(scope='module')
def four(folder, config):
  out = folder / 'four'
  return out, train(out, config, processes=4, devices=1, stop=STOP)


def test_four_processes_train_the_suite_of_one_process(single, four):
  (out, ids), (other, wanted) = four, single
  assert len(wanted) == 2 * 8
  assert all(len(crcs) == small_run.STEPS_A_BLOCK for crcs in wanted.values())
  assert len({crc for crcs in wanted.values() for crc in crcs}) == 2 * 8 * 8
  assert ids == wanted
  assert small_run.checkpoints(out) == [8, STOP]
  assert_near(out, other, 8)


@pytest.mark.parametrize('processes, devices', [(1, 2), (2, 1)])
def test_a_checkpoint_of_four_processes_is_resumed_with_the_same_tokens(
    tmp_path, config, single, four, processes, devices
):
  out = tmp_path / 'run'
  shutil.copytree(four[0], out)
  ids = train(out, config, processes=processes, devices=devices)
  other, wanted = single
  # Only the interrupted block is computed again.
  assert ids == {key: crcs for key, crcs in wanted.items() if key[0] == 1}
  lines = (four[0] / 'metrics.jsonl').read_text()
  assert (out / 'metrics.jsonl').read_text().startswith(lines)
  assert small_run.checkpoints(out) == [8, STOP, STEPS]
  assert_near(out, other, STEPS)


def _evaluate_flags(folder):
  return [
      f'--release={nano_release.make_release(folder / "release")}',
      f'--data={nano_release.make_text(folder / "text")}',
      f'--corpus.cache_dir={folder / "cache"}',
      '--corpus.sequence_length=32',
      '--corpus.held_out_percent=50',
      '--eval.lm_sequences=8',
      '--eval.pca_tokens=512',
  ]


# A command whose process sends itself SIGTERM at a batch of the losses.
_STOPPED = """
import os, signal, sys, time
from jumprelu.evals import text
from jumprelu.run import main

over = text.over

def stopping(rows, step, name):
  for i, result in enumerate(over(rows, step, name)):
    if name == 'evaluate: losses' and i == 2:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(5)
    yield result

text.over = stopping
sys.exit(main.main(['evaluate', *sys.argv[1:]]))
"""


@pytest.mark.parametrize('processes', [1, 2])
def test_an_evaluation_saves_on_sigterm_and_resumes(tmp_path, processes):
  (tmp_path / 'stopped.py').write_text(_STOPPED)
  flags = _evaluate_flags(tmp_path)
  out, whole = tmp_path / 'out.jsonl', tmp_path / 'whole.jsonl'
  command = ['-m', 'jumprelu.run.main', 'evaluate', *flags]

  def run(argv, code):
    with local_processes.run_together(argv, processes=processes) as children:
      codes = [child.exit_code() for child in children]
      outputs = [child.output for child in children]
    assert codes == [code] * processes, '\n'.join(outputs)
    return outputs[0]

  run([tmp_path / 'stopped.py', *flags, f'--out={out}'], 42)
  assert not out.exists()
  output = run([*command, f'--out={out}'], 0)
  assert 'evaluate: latents resumes at batch' in output
  assert 'evaluate: losses resumes at batch 2' in output
  run([*command, f'--out={whole}'], 0)
  assert out.read_bytes() == whole.read_bytes()
  assert not (tmp_path / 'out.partial').exists()


def test_two_processes_write_the_rows_of_one_process(tmp_path):
  argv = ['-m', 'jumprelu.run.main', 'evaluate', *_evaluate_flags(tmp_path)]
  rows = {}
  for processes in (1, 2):
    out = tmp_path / f'{processes}.jsonl'
    with local_processes.run_together(
        [*argv, f'--out={out}'], processes=processes
    ) as children:
      codes = [child.exit_code() for child in children]
      outputs = [child.output for child in children]
    assert codes == [0] * processes, '\n'.join(outputs)
    assert [f'{out}: 2 members' in text for text in outputs] == [
        True,
        *[False] * (processes - 1),
    ]
    rows[processes] = [json.loads(x) for x in out.read_text().splitlines()]
  for row, expected in zip(rows[2], rows[1], strict=True):
    assert row.keys() == expected.keys()
    for name, value in expected.items():
      if isinstance(value, float):
        assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
      else:
        assert row[name] == value, name
