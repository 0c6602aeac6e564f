"""Child processes that run Python code, alone or as the processes of a job."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

# In seconds. Work of seconds on an idle machine may take minutes on a busy one.
PATIENCE = 1500

_CHILD_ENV = {'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1'}


class LocalProcess:
  """A child process, with its output so far."""

  def __init__(self, argv, *, devices=1, cwd=None):
    # A child inherits the tests' flags, except for the number of devices.
    flags = os.environ.get('XLA_FLAGS', '').split()
    env = {
        **os.environ,
        **_CHILD_ENV,
        'JAX_NUM_CPU_DEVICES': str(devices),
        'XLA_FLAGS': ' '.join(f for f in flags if 'device_count' not in f),
    }
    self.popen = subprocess.Popen(
        [sys.executable, *map(str, argv)],
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    self.output = ''
    self._more = threading.Condition()
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def wait_for(self, text, count=1):
    """Waits until `text` has been printed `count` times."""
    until = time.monotonic() + PATIENCE
    with self._more:
      while self.output.count(text) < count:
        left = until - time.monotonic()
        if left <= 0 or not self._reader.is_alive():
          raise AssertionError(f'no {text!r} in:\n{self.output}')
        self._more.wait(min(left, 1))

  def terminate(self):
    self.popen.send_signal(signal.SIGTERM)

  def kill(self):
    self.popen.kill()

  def exit_code(self):
    try:
      code = self.popen.wait(PATIENCE)
    except subprocess.TimeoutExpired as e:
      raise AssertionError(f'still running:\n{self.output}') from e
    self._reader.join(10)
    return code

  def _read(self):
    for line in self.popen.stdout:
      with self._more:
        self.output += line
        self._more.notify_all()


@contextlib.contextmanager
def run(argv, *, devices=1):
  """Starts a child, and kills it at the end of the context."""
  child = LocalProcess(argv, devices=devices)
  try:
    yield child
  finally:
    child.kill()
    child.popen.wait()


def finish(argv, *, devices=1):
  """Runs a child, checks that it succeeds, and returns its output."""
  with run(argv, devices=devices) as child:
    assert child.exit_code() == 0, child.output[-4000:]
  return child.output


def jumprelu(*argv):
  """Runs a command on one device and returns its output."""
  return finish(['-m', 'jumprelu.run.main', *argv])


@contextlib.contextmanager
def run_together(argv, *, processes=2, devices=1):
  """Starts the processes of a job, connected by their --process flags."""
  with contextlib.ExitStack() as stack:
    # Bound until process 0 shares the port, so that no other process takes it.
    holder = stack.enter_context(socket.socket())
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{holder.getsockname()[1]}'
    children = []
    for process_id in range(processes):
      flags = [
          '--process.mode=explicit',
          f'--process.coordinator_address={address}',
          f'--process.num_processes={processes}',
          f'--process.process_id={process_id}',
          '--process.heartbeat_timeout=10',
      ]
      child = run([*argv, *flags], devices=devices)
      children.append(stack.enter_context(child))
    yield children
