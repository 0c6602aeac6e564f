"""Start-up, preemption and shutdown of real processes."""

import os
import signal
import time

import jax
import pytest

from jumprelu import errors
from jumprelu.run import preemption as preemption_lib
from tests import local_processes

# The script that the tests run in separate processes.
SCRIPT = """
import sys, time
from absl import flags
import jax
from jumprelu import processes
from jumprelu.run import preemption as preemption_lib

values = flags.FlagValues()
for name in 'mode', 'coordinator_address':
  flags.DEFINE_string(f'process.{name}', 'single', '', flag_values=values)
for name in 'num_processes', 'process_id', 'heartbeat_timeout':
  flags.DEFINE_integer(f'process.{name}', 1, '', flag_values=values)
flags.DEFINE_integer('process.watchdog_seconds', 0, '', flag_values=values)
flags.DEFINE_string('task', '', '', flag_values=values)
values(sys.argv)
task = values.task
config = {name.partition('.')[2]: flag.value
          for name, flag in values.__flags.items()
          if name.startswith('process.') and flag.present}
process_id = config.get('process_id', 0)


def run_until_preempted(preemption):
  # Steps advance by segments; process 1 is slower.
  for step in range(0, 16_000, 16):
    if preemption.reached(step):
      print('leaving at', step, flush=True)
      sys.exit(preemption.exit_code)
    print('segment', flush=True)
    time.sleep(0.1 + 0.05 * process_id)


with preemption_lib.start(preemption_lib.Config(**config)) as preemption:
  print('processes', jax.process_count(), flush=True)
  if task == 'leave':
    run_until_preempted(preemption)
  elif task == 'save slowly':
    time.sleep(1.5)  # compiling
    while not preemption.reached(0):
      time.sleep(0.1)
    print('saving', flush=True)
    time.sleep(3)
    print('saved', flush=True)
    sys.exit(preemption.exit_code)
  elif task == 'one segment':
    print('computing', flush=True)
    time.sleep(20)
    print('end of the segment', flush=True)
    while not preemption.reached(16):
      time.sleep(0.1)
  elif task == 'disagree':
    processes.agree({'config': f'{process_id // 2}', 'jax': jax.__version__})
  elif task == 'fail alone' and process_id == 1:
    raise RuntimeError('only here')
  elif task == 'fail alone':
    processes.barrier('that process 1 never reaches')
  elif task == 'read slowly':
    time.sleep(4)
  elif task == 'hang':
    preemption.reached(0)
    time.sleep(100)
  elif task == 'beat':
    for _ in range(50):
      preemption.reached(0)
      time.sleep(0.1)
if task == 'after':
  print('training is over', flush=True)
  time.sleep(100)
"""


@pytest.fixture
def script(tmp_path):
  path = tmp_path / 'script.py'
  path.write_text(SCRIPT)
  return path


def test_sigterm_ends_a_single_process_at_a_segments_end(script):
  with local_processes.run([script, '--task=leave']) as child:
    child.wait_for('segment', count=3)
    child.terminate()
    assert child.exit_code() == 42
  assert 'processes 1' in child.output
  assert child.output.count('leaving at') == 1


def test_sigterm_while_compiling_is_kept_and_while_saving_ignored(script):
  with local_processes.run([script, '--task=save slowly']) as child:
    child.wait_for('processes 1')
    child.terminate()
    child.wait_for('saving')
    child.terminate()
    time.sleep(0.5)
    child.terminate()
    assert child.exit_code() == 42
  assert 'saved' in child.output


def test_sigterm_is_acknowledged_before_the_segment_ends(script):
  with local_processes.run([script, '--task=one segment']) as child:
    child.wait_for('computing')
    child.terminate()
    child.wait_for('SIGTERM: will save after this segment, then exit with 42')
    assert 'end of the segment' not in child.output


def test_ctrl_c_saves_and_exits_with_130(script):
  with local_processes.run([script, '--task=save slowly']) as child:
    child.wait_for('processes 1')
    child.popen.send_signal(signal.SIGINT)
    assert child.exit_code() == 130
  assert 'saved' in child.output
  assert child.output.count('Ctrl-C: will save after this segment') == 1
  assert 'Traceback' not in child.output


def test_ctrl_c_to_one_of_two_stops_both_at_the_same_step(script):
  with local_processes.run_together([script, '--task=leave']) as children:
    for child in children:
      child.wait_for('segment', count=3)
    children[1].popen.send_signal(signal.SIGINT)
    assert sorted(child.exit_code() for child in children) == [42, 130]
  steps = [
      child.output.partition('leaving at ')[2].split()[0] for child in children
  ]
  assert steps[0] == steps[1]


def test_sigterm_to_one_of_two_stops_both_at_the_same_step(script):
  with local_processes.run_together([script, '--task=leave']) as children:
    for child in children:
      child.wait_for('segment', count=3)
    children[1].terminate()
    assert [child.exit_code() for child in children] == [42, 42]
  steps = [
      child.output.partition('leaving at ')[2].split()[0] for child in children
  ]
  assert steps[0] == steps[1]


def test_sigterm_after_training_ends_the_process_as_usual(script):
  with local_processes.run([script, '--task=after']) as child:
    child.wait_for('training is over')
    child.terminate()
    assert child.exit_code() == -signal.SIGTERM


@pytest.mark.slow
def test_processes_that_disagree_exit_with_2_and_name_the_field(script):
  argv = [script, '--task=disagree']
  with local_processes.run_together(argv, processes=3) as children:
    assert [child.exit_code() for child in children] == [2, 2, 2]
  for child in children:
    assert 'process 2 of 3 differs from process 0 in config:' in child.output


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_the_other_too(script):
  with local_processes.run_together([script, '--task=fail alone']) as children:
    start = time.monotonic()
    assert children[1].exit_code() == 1
    assert children[0].exit_code() != 0
    assert time.monotonic() - start < 60
  assert 'only here' in children[1].output


def test_the_watchdog_dumps_stacks_and_exits_with_75(script):
  argv = [script, '--task=hang', '--process.watchdog_seconds=1']
  with local_processes.run(argv) as child:
    assert child.exit_code() == 75
  assert 'no progress' in child.output
  assert 'script.py' in child.output


def test_the_watchdog_waits_for_the_first_segment(script):
  argv = [script, '--task=read slowly', '--process.watchdog_seconds=1']
  with local_processes.run(argv) as child:
    assert child.exit_code() == 0
  assert 'no progress' not in child.output


@pytest.mark.slow
def test_finished_segments_keep_the_watchdog_from_firing(script):
  argv = [script, '--task=beat', '--process.watchdog_seconds=3']
  with local_processes.run(argv) as child:
    assert child.exit_code() == 0


def test_a_program_that_already_uses_devices_gets_a_plain_handler(capfd):
  jax.devices()
  with preemption_lib.start() as preemption:
    assert not preemption.reached(16)
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  try:
    with preemption_lib.start() as preemption:
      os.kill(os.getpid(), signal.SIGTERM)
      assert preemption.reached(32)
      os.kill(os.getpid(), signal.SIGTERM)
      assert preemption.reached(48)
    assert capfd.readouterr().err.count('SIGTERM: will save') == 1
    os.kill(os.getpid(), signal.SIGTERM)  # a further notice
  finally:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_the_watchdog_is_off_on_cpu_by_default(monkeypatch):
  made = []
  monkeypatch.setattr(preemption_lib, 'Watchdog', made.append)
  with preemption_lib.start():
    assert not made


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(mode='tpu'), "mode must be one of auto, explicit, .*got 'tpu'"),
        (dict(mode='explicit'), 'must be host:port'),
        (
            dict(mode='explicit', coordinator_address='host'),
            'must be host:port',
        ),
        (dict(num_processes=2), 'coordinator_address must be set, because'),
        (dict(process_id=1), 'must be from 0 to 0'),
        (dict(num_processes=0), 'process_id must be from .*, got 0'),
    ],
)
def test_an_invalid_config_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message) as e:
    preemption_lib.Config(**fields)
  assert e.value.exit_code == 2
