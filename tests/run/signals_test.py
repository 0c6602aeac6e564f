"""Signals end a command at any moment, with one line and their exit code."""

import os
import signal
import threading

import pytest

from jumprelu import errors
from jumprelu.run import signals
from tests import local_processes

# A command that waits in different ways. By its argument it waits while
# Python runs, in a call into C++ that returns late, or in an import; or it is
# between two segments of a run.
_SCRIPT = """
import ctypes, pathlib, sys, time
from jumprelu.run import main, signals

WHERE, FOLDER = sys.argv[1:]


class Toy:
  'Waits.'

  @staticmethod
  def define_flags(flag_values):
    pass

  @staticmethod
  def run(flag_values):
    if WHERE == 'import':
      code = '''
print("waiting", flush=True)
import time
try:
  time.sleep(100)
except BaseException:
  print("caught", flush=True)
'''
      pathlib.Path(FOLDER, 'slow_library.py').write_text(code)
      sys.path.insert(0, FOLDER)
      import slow_library
    if WHERE == 'run':
      signals.current().save_on(lambda number: print('noted', flush=True))
    print('waiting', flush=True)
    if WHERE == 'native':
      mutex = (ctypes.c_char * 64)()
      for _ in range(2):  # Waits for ever, because it is locked already.
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
    for _ in range(1000):
      time.sleep(0.1)


main.importlib.import_module = lambda name: Toy
sys.exit(main.launch('toy', []))
"""


def _start(where, tmp_path):
  return local_processes.run(['-c', _SCRIPT, where, tmp_path])


@pytest.mark.parametrize('where', ['python', 'import', 'native'])
@pytest.mark.parametrize(
    'number, code, name',
    [(signal.SIGTERM, 42, 'SIGTERM'), (signal.SIGINT, 130, 'Ctrl-C')],
)
def test_a_signal_ends_a_command_with_one_line(
    tmp_path, where, number, code, name
):
  with _start(where, tmp_path) as child:
    child.wait_for('waiting')
    child.popen.send_signal(number)
    child.wait_for(f'jumprelu toy: {name}: leaving with {code}')
    assert child.exit_code() == code
  assert child.output.count('\n') == 2 and 'caught' not in child.output


def test_a_run_saves_at_a_signal_and_leaves_at_the_second_ctrl_c(tmp_path):
  with _start('run', tmp_path) as child:
    child.wait_for('waiting')
    child.terminate()
    child.wait_for('SIGTERM: will save after this segment, then exit with 42')
    child.wait_for('noted')
    child.popen.send_signal(signal.SIGINT)
    child.wait_for('Ctrl-C: will save after this segment, then exit with 130')
    child.wait_for('noted', count=2)
    child.popen.send_signal(signal.SIGINT)
    assert child.exit_code() == 130
  assert 'Traceback' not in child.output


def test_a_closed_terminal_does_not_end_a_command(tmp_path):
  with _start('python', tmp_path) as child:
    child.wait_for('waiting')
    child.popen.send_signal(signal.SIGHUP)
    child.terminate()
    child.wait_for('SIGTERM: leaving')
    assert child.exit_code() == 42


def test_handlers_are_restored(capfd):
  before = [signal.getsignal(number) for number in signals.CODES]
  with signals.Signals('toy') as handlers:
    assert signals.current() is handlers
    with pytest.raises(errors.Interrupted) as caught:
      os.kill(os.getpid(), signal.SIGTERM)
    assert errors.exit_code(caught.value) == 42
    os.kill(os.getpid(), signal.SIGTERM)  # Ignored: the command is leaving.
  assert [signal.getsignal(number) for number in signals.CODES] == before
  assert signals.current() is None
  assert capfd.readouterr().err.count('toy: SIGTERM: leaving with 42') == 1


def test_ignored_signals_stay_ignored():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with signals.Signals():
      assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGINT, before)


def test_other_threads_install_nothing():
  before, current = signal.getsignal(signal.SIGTERM), []

  def enter():
    with signals.Signals():
      current.append(signals.current())

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert current == [None]
  assert signal.getsignal(signal.SIGTERM) is before
