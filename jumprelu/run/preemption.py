"""Multi-process start-up, preemption notices and shutdown.

A preemption notice is a SIGTERM, which may reach one process or all. A run
stops only at the end of a segment, a sequence of steps after which each process
calls `Preemption.reached`. JAX's coordination service distributes the notice
and chooses the call at which all processes stop, so that all save the same
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
from jumprelu.files import fields

EXIT_PREEMPTED = 42
EXIT_WATCHDOG = 75

MODES = ('auto', 'explicit', 'single')

# Seconds, in effect never: a single process needs no heartbeats, and with JAX's
# default of 100 s its run would be ended whenever the computer sleeps.
_NO_HEARTBEAT = 10**7
_WATCHDOG_SECONDS = 1800

# The key under which JAX's coordination service stores the time of the first
# notice, and the seconds between two looks at it.
_NOTICE_KEY, _NOTICE_SECONDS = 'RECEIVED_PREEMPTION_NOTICE', 0.5


@dataclasses.dataclass(frozen=True)
class Config:
  """Set-up of multi-process runs."""

  mode: str = fields.field(
      'auto',
      'how the processes connect; auto: explicit if coordinator_address is set,'
      ' else by the TPU, Slurm or MPI environment, else single; explicit: by the'
      ' address, number and id below; single: one process',
  )
  coordinator_address: str = fields.field(
      '', 'host:port of process 0 (explicit mode)'
  )
  num_processes: int = fields.field(1, 'number of processes (explicit mode)')
  process_id: int = fields.field(0, 'index of this process (explicit mode)')
  initialization_timeout: int = fields.field(
      1200, 'seconds to wait for the other processes'
  )
  heartbeat_timeout: int = fields.field(
      100, 'seconds without a heartbeat after which a process counts as lost'
  )
  watchdog_seconds: int = fields.field(
      -1,
      'seconds without a finished segment after which the process exits'
      f' with {EXIT_WATCHDOG}; 0: never; -1: {_WATCHDOG_SECONDS}, or never on'
      ' CPU',
  )

  def __post_init__(self):
    known = self.mode in MODES
    fields.require(
        'process.mode', self.mode, known, f'one of {", ".join(MODES)}'
    )
    fields.require(
        'process.process_id',
        self.process_id,
        0 <= self.process_id < self.num_processes,
        f'from 0 to {self.num_processes - 1} (process.num_processes - 1)',
    )
    address = self.coordinator_address
    fields.require(
        'process.coordinator_address',
        address,
        self.mode != 'explicit' or ':' in address,
        'host:port, because process.mode is explicit',
    )
    fields.require(
        'process.coordinator_address',
        address,
        self.num_processes == 1 or bool(address),
        f'set, because process.num_processes is {self.num_processes}',
    )


def start(config: Config = Config()) -> 'Preemption':
  """Joins the other processes, and returns a context manager for the run.

  Must be called before any device is used. Inside the context, SIGTERM requests
  a stop, and an error in a multi-process run ends this process immediately.

  Raises:
    UserError: the mode is auto, and the environment describes the cluster only
      in part.
  """
  distributed = _initialize(config)
  _label_log()
  seconds = config.watchdog_seconds
  if seconds < 0:
    seconds = 0 if jax.default_backend() == 'cpu' else _WATCHDOG_SECONDS
  watchdog = Watchdog(seconds) if seconds else None
  return Preemption(distributed=distributed, watchdog=watchdog)


class Preemption:
  """The state of preemption: whether the run should save and exit.

  Also reports the run's progress to the watchdog.
  """

  def __init__(self, *, distributed: bool, watchdog: 'Watchdog | None' = None):
    self._distributed = distributed
    self._watchdog = watchdog
    self._calls = 0
    self._noticed = threading.Event()
    self._reached = False
    self._closed = threading.Event()
    if not distributed:
      self._listen()
    elif processes.is_main():
      threading.Thread(target=self._acknowledge, daemon=True).start()

  def __enter__(self) -> 'Preemption':
    return self

  def __exit__(self, exc_type, error, tb) -> None:
    self._closed.set()
    if self._watchdog:
      self._watchdog.stop()
    in_main_thread = threading.current_thread() is threading.main_thread()
    # If the run stopped because of a notice, later SIGTERMs remain ignored,
    # because the default action would change the exit code.
    if in_main_thread and not self._reached:
      signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if isinstance(error, Exception) and jax.process_count() > 1:
      _abandon(error)

  def reached(self, step: int) -> bool:
    """Returns whether to save and exit now.

    All processes call it at the end of each segment. Once the result is true,
    all later results are, and further SIGTERMs have no effect.
    """
    if self._watchdog:
      self._watchdog.beat()
    self._calls += 1
    if self._reached:
      return True
    if self._distributed:
      # JAX chooses the number after the highest one that any process has
      # passed, and stops each process when its number equals the chosen one.
      # The numbers must therefore count calls. Step numbers advance by whole
      # segments, and could skip the chosen one.
      self._reached = multihost_utils.reached_preemption_sync_point(self._calls)
    else:
      self._reached = self._noticed.is_set()
    if self._reached:
      logging.warning(
          'step %d: SIGTERM received, saving a checkpoint and stopping', step
      )
    return self._reached

  def _listen(self) -> None:
    """Installs a SIGTERM handler, which only the main thread may do."""
    if threading.current_thread() is threading.main_thread():
      signal.signal(signal.SIGTERM, self._notice)
    else:
      logging.warning(
          'not in the main thread: SIGTERM will end this process without'
          ' saving a checkpoint'
      )

  def _notice(self, *_) -> None:
    if not self._noticed.is_set():
      _print_acknowledgement()
    self._noticed.set()

  def _acknowledge(self) -> None:
    """Prints a line soon after a notice; runs in a thread of process 0.

    JAX's handler of SIGTERM prints nothing, and the end of the segment may be
    minutes away. The coordination service stores the notice of any process.
    """
    # JAX has no public name for the client of the service.
    client = vars(multihost_utils)['distributed'].global_state.client
    while client and not self._closed.wait(_NOTICE_SECONDS):
      try:
        client.key_value_try_get(_NOTICE_KEY)
      except jax.errors.JaxRuntimeError:
        continue  # No notice so far.
      if not self._reached:
        _print_acknowledgement()
      return


def _print_acknowledgement() -> None:
  print(
      f'SIGTERM: will save after this segment, then exit with {EXIT_PREEMPTED}',
      file=sys.stderr,
      flush=True,
  )


class Watchdog:
  """A thread that ends the process if it makes no progress.

  A collective operation never returns, for example, if another process died.
  """

  def __init__(
      self, seconds: float, *, leave: Callable[[int], None] = os._exit
  ):
    self._seconds = seconds
    self._leave = leave
    self._last = time.monotonic()
    self._stopped = threading.Event()
    threading.Thread(target=self._watch, daemon=True).start()

  def beat(self) -> None:
    """Records that the process has made progress."""
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
        finally:  # The traceback fails if stderr is not a file.
          self._leave(EXIT_WATCHDOG)
        return


def _initialize(config: Config) -> bool:
  """Connects to JAX's coordination service; returns whether it is running."""
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
        f'process.mode=auto: the environment describes no complete cluster'
        f' ({e}); set process.mode to explicit or single'
    ) from e
  return True


def _initialize_alone() -> bool:
  """Starts a coordination service on the loopback, for its SIGTERM notices.

  Returns whether the service is running.
  """
  try:
    # gRPC crashes the process (SIGSEGV) if its port is in use. The port is kept
    # open here until gRPC shares it, because another process could bind a port
    # that was only checked.
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
    # The computer has no loopback, or devices are already in use because the
    # run is part of another program.
    logging.info(
        'no coordination service (%s): using a plain SIGTERM handler', e
    )
    return False
  return True


def _cluster_seen() -> bool:
  """Returns whether the environment is that of a TPU, Slurm or MPI cluster."""
  if os.environ.get('JAX_PLATFORMS', '').split(',')[0] != 'cpu':
    chips = glob.glob('/dev/accel[0-9]*') + glob.glob('/dev/vfio/[0-9]*')
    if chips and importlib.util.find_spec('libtpu'):
      return True
  sizes = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
  return any(int(os.environ.get(name, '1')) > 1 for name in sizes)


def _label_log() -> None:
  """Limits the log of all processes but 0 to warnings, with a label."""
  count, index = jax.process_count(), jax.process_index()
  if count == 1 or processes.is_main():
    return
  logging.set_verbosity(logging.WARNING)
  logging.use_absl_handler()
  logging.get_absl_handler().setFormatter(
      python_logging.Formatter(f'[p{index}/{count}] %(message)s')
  )


def _abandon(error: Exception) -> None:
  """Reports an error and exits without JAX's shutdown.

  The shutdown would wait for the other processes, which may be stuck.
  """
  who = f'[p{jax.process_index()}/{jax.process_count()}]'
  code = getattr(error, 'exit_code', 1)
  if hasattr(error, 'exit_code'):
    print(f'{who} {error}', file=sys.stderr)
  else:
    traceback.print_exception(error)
  sys.stdout.flush()
  sys.stderr.flush()
  if processes.is_main():
    # The coordination service runs in this process; when it ends, the other
    # processes are killed. The delay lets processes that have the same error
    # exit with that error's code.
    time.sleep(2)
  os._exit(code)
