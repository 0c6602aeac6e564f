"""Multi-process start-up, preemption notices and shutdown.

A run stops only at the end of a segment. SIGTERM may reach one process or all;
JAX's coordination service distributes the notice and chooses the call of
`Preemption.reached` at which all processes stop, so that all save the same
step.
"""

from collections.abc import Callable
import dataclasses
import faulthandler
import functools
import glob
import importlib.util
import logging as python_logging
import os
import signal
import socket
import sys
import threading
import time
import traceback

from absl import logging
import jax
from jax.experimental import multihost_utils

from jumprelu import errors, processes

EXIT_PREEMPTED = 42
EXIT_WATCHDOG = 75

MODES = ('auto', 'explicit', 'single')

# A single process needs no heartbeats; with the default of 100 s its run would
# die whenever the computer sleeps.
_NO_HEARTBEAT = 10**7
_WATCHDOG_SECONDS = 1800


@dataclasses.dataclass(frozen=True)
class Config:
  """Multi-process set-up."""

  mode: str = dataclasses.field(
      default='auto',
      metadata={
          'help': (
              'How the processes connect. auto: from the TPU, Slurm or MPI'
              ' environment, else single; explicit: from the address, number'
              ' and id below; single: one process'
          )
      },
  )
  coordinator_address: str = dataclasses.field(
      default='', metadata={'help': 'host:port of process 0 (explicit mode)'}
  )
  num_processes: int = dataclasses.field(
      default=1, metadata={'help': 'number of processes (explicit mode)'}
  )
  process_id: int = dataclasses.field(
      default=0, metadata={'help': 'index of this process (explicit mode)'}
  )
  initialization_timeout: int = dataclasses.field(
      default=1200, metadata={'help': 'seconds to wait for the other processes'}
  )
  heartbeat_timeout: int = dataclasses.field(
      default=100,
      metadata={
          'help': 'seconds without a heartbeat after which a process is lost'
      },
  )
  watchdog_seconds: int = dataclasses.field(
      default=-1,
      metadata={
          'help': (
              'seconds without a finished segment after which the process exits'
              f' with 75; 0: never; -1: {_WATCHDOG_SECONDS}, or never on CPU'
          )
      },
  )

  def __post_init__(self):
    if self.mode not in MODES:
      raise errors.UserError(
          f'process.mode is {self.mode!r}: must be one of {", ".join(MODES)}'
      )
    if not 0 <= self.process_id < self.num_processes:
      raise errors.UserError(
          f'process.process_id is {self.process_id}: must be from 0 to'
          f' {self.num_processes - 1} (process.num_processes - 1)'
      )
    if self.mode == 'explicit' and ':' not in self.coordinator_address:
      raise errors.UserError(
          f'process.coordinator_address is {self.coordinator_address!r}:'
          ' process.mode=explicit needs host:port'
      )
    if self.num_processes > 1 and not self.coordinator_address:
      raise errors.UserError(
          f'process.num_processes is {self.num_processes}: set'
          ' process.coordinator_address too'
      )


def start(config: Config = Config()) -> 'Preemption':
  """Joins the other processes; must be called before any device is used.

  Inside the returned context SIGTERM requests a stop, and an error in a
  multi-process run ends this process immediately.
  """
  distributed = _initialize(config)
  _label_log()
  seconds = config.watchdog_seconds
  if seconds < 0:
    seconds = 0 if jax.default_backend() == 'cpu' else _WATCHDOG_SECONDS
  watchdog = Watchdog(seconds) if seconds else None
  return Preemption(distributed=distributed, watchdog=watchdog)


class Preemption:
  """The preemption state: whether to save and exit. Also feeds the watchdog."""

  def __init__(self, *, distributed: bool, watchdog: 'Watchdog | None' = None):
    self._distributed = distributed
    self._watchdog = watchdog
    self._calls = 0
    self._noticed = threading.Event()
    self._reached = False
    if not distributed:
      self._listen()

  def __enter__(self) -> 'Preemption':
    return self

  def __exit__(self, exc_type, error, tb) -> None:
    if self._watchdog:
      self._watchdog.stop()
    in_main_thread = threading.current_thread() is threading.main_thread()
    # After a notice, further SIGTERMs stay ignored: one with the default action
    # would change the exit code.
    if in_main_thread and not self._reached:
      signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if isinstance(error, Exception) and jax.process_count() > 1:
      _abandon(error)

  def reached(self, step: int) -> bool:
    """Returns whether to save and exit now.

    All processes call it at the end of each segment. Once true, it stays true;
    further SIGTERMs have no effect.
    """
    if self._watchdog:
      self._watchdog.beat()
    self._calls += 1
    if self._reached:
      return True
    if self._distributed:
      # JAX stops all processes at the call after the latest one that any of
      # them has made, and compares for equality. The argument must therefore
      # count calls: step numbers, which advance by segments, could skip it.
      self._reached = multihost_utils.reached_preemption_sync_point(self._calls)
    else:
      self._reached = self._noticed.is_set()
    if self._reached:
      logging.warning(
          'step %d: SIGTERM received, saving a checkpoint and stopping', step
      )
    return self._reached

  def _listen(self) -> None:
    if threading.current_thread() is threading.main_thread():
      signal.signal(signal.SIGTERM, lambda *_: self._noticed.set())
    else:
      logging.warning(
          'not the main thread: SIGTERM will end this process unsaved'
      )


class Watchdog:
  """A thread that ends a process without progress, as in a stuck collective."""

  def __init__(
      self, seconds: float, *, leave: Callable[[int], None] = os._exit
  ):
    self._seconds = seconds
    self._leave = leave
    self._last = time.monotonic()
    self._stopped = threading.Event()
    threading.Thread(target=self._watch, daemon=True).start()

  def beat(self) -> None:
    """Records that the process is alive."""
    self._last = time.monotonic()

  def stop(self) -> None:
    """Stops the watchdog."""
    self._stopped.set()

  def _watch(self) -> None:
    while not self._stopped.wait(self._seconds / 10):
      silent = time.monotonic() - self._last
      if silent > self._seconds:
        print(f'watchdog: no progress for {silent:.0f} s', file=sys.stderr)
        try:
          faulthandler.dump_traceback(sys.stderr.fileno(), all_threads=True)
        finally:  # stderr may not be a file
          self._leave(EXIT_WATCHDOG)
        return


def _initialize(config: Config) -> bool:
  """Connects to the coordination service; returns whether it is running."""
  if jax.distributed.is_initialized():
    return True
  mode = config.mode
  if mode == 'auto' and config.coordinator_address:
    mode = 'explicit'
  elif mode == 'auto' and not _cluster_seen():
    mode = 'single'
  if mode == 'single':
    return _initialize_alone()
  initialize = functools.partial(
      jax.distributed.initialize,
      initialization_timeout=config.initialization_timeout,
      heartbeat_timeout_seconds=config.heartbeat_timeout,
  )
  if mode == 'explicit':
    address = config.coordinator_address
    local = address.rpartition(':')[0] in ('127.0.0.1', 'localhost', '[::1]')
    initialize(
        address,
        config.num_processes,
        config.process_id,
        cluster_detection_method='deactivate',
        # By default process 0 would listen on all network interfaces.
        coordinator_bind_address=address if local else None,
    )
    return True
  try:
    initialize()
  except ValueError as e:
    raise errors.UserError(
        f'process.mode=auto found no complete cluster ({e}): set'
        ' process.mode=explicit or single'
    ) from e
  return True


def _initialize_alone() -> bool:
  """Starts a one-process service on the loopback, for its SIGTERM notices."""
  try:
    # gRPC crashes the process (SIGSEGV) if its port is taken. The port is held
    # open until gRPC shares it, because a port that was merely checked could be
    # taken before gRPC binds it.
    with socket.socket() as holder:
      holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
      holder.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{holder.getsockname()[1]}'
      jax.distributed.initialize(
          address,
          num_processes=1,
          process_id=0,
          cluster_detection_method='deactivate',
          coordinator_bind_address=address,
          heartbeat_timeout_seconds=_NO_HEARTBEAT,
      )
  except (OSError, RuntimeError) as e:
    # There is no loopback, or devices are already in use because the run is
    # embedded in another program.
    logging.info('no coordination service (%s): plain SIGTERM handler', e)
    return False
  return True


def _cluster_seen() -> bool:
  """Returns whether JAX can detect the cluster from the environment."""
  if os.environ.get('JAX_PLATFORMS', '').split(',')[0] != 'cpu':
    chips = glob.glob('/dev/accel[0-9]*') + glob.glob('/dev/vfio/[0-9]*')
    if chips and importlib.util.find_spec('libtpu'):
      return True
  sizes = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
  return any(int(os.environ.get(name, '1')) > 1 for name in sizes)


def _label_log() -> None:
  """Limits the log of processes other than 0 to labelled warnings."""
  count, index = jax.process_count(), jax.process_index()
  if count == 1 or processes.is_main():
    return
  logging.set_verbosity(logging.WARNING)
  logging.use_absl_handler()
  logging.get_absl_handler().setFormatter(
      python_logging.Formatter(f'[p{index}/{count}] %(message)s')
  )


def _abandon(error: Exception) -> None:
  """Exits without JAX's shutdown, which waits for possibly stuck processes."""
  who = f'[p{jax.process_index()}/{jax.process_count()}]'
  code = getattr(error, 'exit_code', 1)
  if hasattr(error, 'exit_code'):
    print(f'{who} {error}', file=sys.stderr)
  else:
    traceback.print_exception(error)
  sys.stdout.flush()
  sys.stderr.flush()
  if processes.is_main():
    # The coordination service runs in this process, and its end kills the
    # other processes. The delay lets those with the same error exit with its
    # code.
    time.sleep(2)
  os._exit(code)
