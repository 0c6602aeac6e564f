"""A run that was killed equals a whole run, and differences are seen."""

import json
import random
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest

from experiments.reliability import soak, soak_runs, soak_states
from tests import small_state


def _finished(folder, *, loss=0.5, values=None):
  """Writes the files of a finished run of five steps."""
  folder.mkdir()
  small_state.save(folder / 'checkpoints', 5)
  if values is not None:
    state = small_state.make_state(5)
    state.groups['a']['W_enc'] = values(state.groups['a']['W_enc'])
    path = folder / 'checkpoints'
    for old in path.iterdir():
      soak_runs.remove(old)
    config = small_state.checkpoint.Config(keep=3)
    with small_state.checkpoint.Checkpointer(path, config) as checkpointer:
      checkpointer.save(5, state, meta=small_state.META)
  lines = [{'step': 4, 'loss': loss, 'seconds': random.random()}]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)
  (folder / 'suite.json').write_text('{"scales": {"a": 1.0}}')
  (folder / 'STATUS.json').write_text('{"state": "done"}')
  return folder


def _differences(*folders):
  return list(soak_states.differences(*folders))


def test_equal_runs_have_no_differences_but_times(tmp_path):
  whole = _finished(tmp_path / 'a')
  assert _differences(_finished(tmp_path / 'b'), whole) == []


def test_each_difference_is_named(tmp_path):
  whole = _finished(tmp_path / 'whole')
  run = _finished(tmp_path / 'loss', loss=0.25)
  assert _differences(run, whole) == ['metrics.jsonl differs']
  # The smallest change of one number.
  nudged = _finished(
      tmp_path / 'bit',
      values=lambda x: x.at[0, 0, 0].set(jnp.nextafter(x[0, 0, 0], 9)),
  )
  assert _differences(nudged, whole) == [
      'groups.a.W_enc differs',
      'record differs',
  ]
  run = _finished(tmp_path / 'left')
  (run / 'suite.json').write_text('{"scales": {"a": 2.0}}')
  (run / 'STATUS.json').write_text('{"state": "running"}')
  (run / 'checkpoints' / '4.orbax-checkpoint-tmp').mkdir()
  (run / 'config.json.partial').write_text('')
  text = '\n'.join(_differences(run, whole))
  for words in ('scales of', 'state is running', 'tmp was left', 'partial was'):
    assert words in text
  soak_runs.remove(run / 'checkpoints' / '5')
  assert 'last checkpoint' in _differences(run, whole)[0]


@pytest.mark.parametrize(
    'kind, code, is_right',
    [
        ('KILL', -signal.SIGKILL, True),
        ('TERM', 42, True),
        ('TERM', -signal.SIGTERM, True),
        ('TERM_KILL', -signal.SIGKILL, True),
        ('INT', 130, True),
        ('INT', 0, True),
        ('TERM', 1, False),
        ('TERM', -signal.SIGKILL, False),
        ('KILL', 70, False),
        ('INT', 42, False),
    ],
)
def test_only_codes_of_the_signal_are_right(kind, code, is_right):
  problem = soak_runs._problem([0, code], kind, 'output')
  assert (not problem) == is_right


def test_an_interrupt_reaches_a_child_although_the_parent_ignores_it():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    soak_runs._restore_interrupts()
    child = subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import time; print(1, flush=True); time.sleep(99)',
        ],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
  finally:
    signal.signal(signal.SIGINT, before)
  with child:
    child.stdout.readline()
    soak_runs._send([child], 'INT', random.Random(0))
    assert child.wait(60) in (-signal.SIGINT, 130)


def test_steps_after_the_newest_checkpoint_are_lost(tmp_path):
  (tmp_path / 'checkpoints' / '16').mkdir(parents=True)
  (tmp_path / 'checkpoints' / '32.orbax-checkpoint-tmp').mkdir()
  text = '{"step": 16}\n{"step": 28}\n{"step": 3'
  (tmp_path / 'metrics.jsonl').write_text(text)
  assert soak_runs._lost(tmp_path) == 12
  assert soak_runs._lines(tmp_path) == 2
  assert soak_runs._is_saving(tmp_path)
  assert soak_runs._lost(tmp_path / 'nothing') == 0


def test_a_run_that_has_started_twice_at_a_step_gets_to_a_later_one(tmp_path):
  (tmp_path / 'starts.json').write_text('{"step": 0, "count": 2}')
  before = soak_runs._progress(tmp_path)
  aims = {
      soak_runs._aim(tmp_path, random.Random(seed), before)[0]
      for seed in range(40)
  }
  assert aims == {'save', 'segment'}


def test_sums_and_tables(tmp_path):
  row = dict.fromkeys(('starts', *soak._SUMS), 2)
  rows = [row | {'topology': name} for name in soak_runs.TOPOLOGIES]
  line = soak.last_line(rows)
  assert line == (
      'cycles=8 kills=8 in_flight_saves=8 lost_steps=8 mismatches=8'
  )
  soak.write_table(tmp_path / 'soak.csv', rows)
  lines = (tmp_path / 'soak.csv').read_text().splitlines()
  assert lines[1] == 'one_device,1,2,2,2,2,2,2' and len(lines) == 5


@pytest.mark.slow
def test_a_killed_run_of_the_real_command_equals_a_whole_one(tmp_path):
  start = time.monotonic()
  soak.soak(tmp_path, cycles=1, seed=3, topologies=['two_devices'])
  (line,) = (tmp_path / soak.RESULTS).read_text().splitlines()
  row = json.loads(line)
  assert row['cycles'] >= 1 and row['mismatches'] == 0
  print(time.monotonic() - start)
