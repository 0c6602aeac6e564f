"""The real command, preempted, killed and resumed."""

import json
import signal
import time

import numpy as np
import pytest

from jumprelu.run import preemption
from tests import local_processes, small_run

# Enough for some seconds on a fast machine, because JAX polls for SIGTERM only
# once a second.
STEPS = 320

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('faults')


@pytest.fixture(scope='module')
def config(folder):
  return small_run.overrides(folder, steps=STEPS)


@pytest.fixture(scope='module')
def uninterrupted(folder, config):
  out = folder / 'uninterrupted'
  finish(out, config)
  return out


def finish(out, config, **changes):
  argv = small_run.command(out, config, **changes)
  with local_processes.run(argv, devices=2) as child:
    assert child.exit_code() == 0, child.output


def wait_for_steps(out, lines, child):
  until = time.monotonic() + local_processes.PATIENCE
  path = out / 'metrics.jsonl'
  while not path.exists() or path.read_text().count('\n') < lines:
    assert time.monotonic() < until and child.popen.poll() is None, child.output
    time.sleep(0.01)


def status(out):
  return json.loads((out / 'STATUS.json').read_text())


def test_sigterm_saves_and_exits_42_and_the_resumed_run_is_identical(
    folder, config, uninterrupted
):
  out = folder / 'sigterm'
  argv = small_run.command(out, config)
  with local_processes.run(argv, devices=2) as child:
    wait_for_steps(out, 3, child)
    child.terminate()
    start = time.monotonic()
    time.sleep(0.2)
    child.terminate()
    assert child.exit_code() == preemption.EXIT_PREEMPTED
    print('exited after', time.monotonic() - start)
  last = small_run.checkpoints(out)[-1]
  assert (status(out)['state'], status(out)['step']) == ('preempted', last)
  assert last % small_run.STEPS_A_SEGMENT == 0 and last < STEPS
  lines = (out / 'metrics.jsonl').read_text()
  finish(out, config)
  assert (out / 'metrics.jsonl').read_text().startswith(lines)
  assert small_run.metrics(out) == small_run.metrics(uninterrupted)
  blocks = small_run.checkpoints(uninterrupted)
  assert small_run.checkpoints(out) == sorted({*blocks, last})
  small_run.assert_same_bits(out, uninterrupted, STEPS)


def test_a_run_killed_during_saves_is_resumed_bit_for_bit(
    folder, config, uninterrupted
):
  out = folder / 'killed'
  argv = small_run.command(out, config)
  hits = 0
  for _ in range(3):
    with local_processes.run(argv, devices=2) as child:
      wait_for_steps(out, 6, child)
      until = time.monotonic() + local_processes.PATIENCE
      while time.monotonic() < until and child.popen.poll() is None:
        if list((out / 'checkpoints').glob('*.orbax-checkpoint-tmp')):
          break
        time.sleep(0.001)
      child.kill()
      assert child.exit_code() == -signal.SIGKILL, child.output
    hits += bool(list((out / 'checkpoints').glob('*.orbax-checkpoint-tmp')))
  assert hits > 0
  finish(out, config)
  assert not list((out / 'checkpoints').glob('*tmp*'))
  assert not list((out / 'checkpoints').glob('*corrupt*'))
  assert small_run.metrics(out) == small_run.metrics(uninterrupted)
  small_run.assert_same_bits(out, uninterrupted, STEPS)


def test_two_processes_train_the_same_suite_and_stop_together(
    folder, config, uninterrupted
):
  out = folder / 'two'
  argv = small_run.command(out, config)
  with local_processes.run_together(argv, devices=1) as children:
    wait_for_steps(out, 14, children[0])
    children[1].terminate()
    codes = [child.exit_code() for child in children]
    outputs = children[0].output + children[1].output
  assert codes == [preemption.EXIT_PREEMPTED] * 2, outputs
  step = 3 * small_run.STEPS_A_BLOCK
  ours = small_run.arrays(out, step)
  theirs = small_run.arrays(uninterrupted, step)
  assert ours.keys() == theirs.keys()
  for name, x in ours.items():
    tolerance = 1e-5 * np.abs(theirs[name]).max()
    np.testing.assert_allclose(x, theirs[name], rtol=0, atol=tolerance)
  # One process resumes the run of two.
  last = status(out)['step']
  lines = (out / 'metrics.jsonl').read_text()
  with local_processes.run(argv, devices=2) as child:
    wait_for_steps(out, lines.count('\n') + 1, child)
  after = (out / 'metrics.jsonl').read_text()
  assert after.startswith(lines)
  first = json.loads(after.removeprefix(lines).splitlines()[0])
  assert first['step'] == last + small_run.STEPS_A_SEGMENT


def test_a_run_directory_of_another_config_is_refused_at_once(
    folder, config, uninterrupted
):
  before = (uninterrupted / 'config.json').read_text()
  argv = small_run.command(uninterrupted, config, **{'layer': 1})
  with local_processes.run(argv) as child:
    assert child.exit_code() == 2
  assert 'layer was 0, is 1' in child.output
  assert (uninterrupted / 'config.json').read_text() == before
