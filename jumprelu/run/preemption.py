"""Multi-process start-up, preemption notices and shutdown.

A preemption notice is a SIGTERM, which may reach one process or all, or a
Ctrl-C. A run stops only at the end of a segment, a sequence of steps after
which each process calls `Preemption.reached`. With several processes, JAX's
coordination service distributes the notice and chooses the call at which all
processes stop, so that all save the same step.
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
import sys
import threading
import time
import traceback

from absl import logging
import jax
from jax.experimental import multihost_utils

from jumprelu import errors, processes
from jumprelu.files import fields
from jumprelu.run import signals

EXIT_PREEMPTED = errors.EXIT_PREEMPTED
EXIT_WATCHDOG = errors.EXIT_TRY_AGAIN

MODES = ('auto', 'explicit', 'single')

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


def start(config: Config = Config(), *, saves: bool = True) -> 'Preemption':
  """Joins the other processes, and returns a context manager for the run.

  Must be called before any device is used. Inside the context, SIGTERM and
  Ctrl-C request a stop, and an error in a multi-process run ends this process
  immediately.

  Args:
    config: The set-up of the processes.
    saves: Whether the run calls `Preemption.reached`; if not, a signal ends it
      at once.

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
  return Preemption(distributed=distributed, watchdog=watchdog, saves=saves)


class Preemption:
  """The state of preemption: whether the run should save and exit.

  Also reports the run's progress to the watchdog.
  """

  def __init__(
      self,
      *,
      distributed: bool,
      watchdog: 'Watchdog | None' = None,
      saves: bool = True,
  ):
    self._distributed = distributed
    self._watchdog = watchdog
    self._saves = saves
    self._calls = 0
    self._noticed = threading.Event()
    self._reached = False
    self._closed = threading.Event()
    self._interrupted = False
    # A command has opened it. Otherwise the run is part of another program.
    self._signals = signals.current()
    # JAX handles SIGTERM for several processes.
    handled = [signal.SIGINT] if distributed else list(signals.CODES)
    self._alone = None if self._signals else signals.Signals('run', handled)
    if distributed and saves and processes.is_main():
      threading.Thread(target=self._acknowledge, daemon=True).start()

  @property
  def exit_code(self) -> int:
    """The exit code of a run that was stopped: of Ctrl-C, or of SIGTERM."""
    return errors.EXIT_INTERRUPTED if self._interrupted else EXIT_PREEMPTED

  def __enter__(self) -> 'Preemption':
    if self._signals and not self._saves:
      self._signals.install()  # In place of the handler of JAX.
    if self._alone:
      self._signals = self._alone.__enter__()
      if signals.current() is not self._alone:
        logging.warning(
            'not in the main thread: SIGTERM will end this process without'
            ' saving a checkpoint'
        )
      if self._saves:
        self._signals.save_on(self._notice)
    return self

  def __exit__(self, exc_type, error, tb) -> None:
    self._closed.set()
    if self._watchdog:
      self._watchdog.stop()
    # If the run stopped because of a notice, later ones remain ignored, because
    # they would change the exit code.
    if self._signals and not self._reached:
      self._signals.save_on(None)
    if self._alone:
      self._alone.__exit__()
    stopped = Exception | errors.Interrupted
    if isinstance(error, stopped) and jax.process_count() > 1:
      _abandon(error)

  def reached(self, step: int) -> bool:
    """Returns whether to save and exit now.

    All processes call it at the end of each segment. Once the result is true,
    all later results are, and further SIGTERMs have no effect. Before the first
    call there is nothing to save, so a signal ends a command at once.
    """
    if self._signals and not self._calls:
      self._signals.save_on(self._notice)
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
          'step %d: stop requested, saving a checkpoint and stopping', step
      )
    return self._reached

  def _notice(self, number: signal.Signals) -> None:
    self._interrupted |= number == signal.SIGINT
    if self._distributed:
      # JAX's handler informs the other processes.
      os.kill(os.getpid(), signal.SIGTERM)
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
        print(
            'SIGTERM: will save after this segment, then exit with'
            f' {EXIT_PREEMPTED}',
            file=sys.stderr,
            flush=True,
        )
      return


class Watchdog:
  """A thread that ends the process if it makes no progress.

  A collective operation never returns, for example, if another process died.
  The thread waits for the first segment, because reading the text and compiling
  may take longer than any segment.
  """

  def __init__(
      self, seconds: float, *, leave: Callable[[int], None] = os._exit
  ):
    self._seconds = seconds
    self._leave = leave
    self._last: float | None = None
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
      silent = time.monotonic() - (self._last or time.monotonic())
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
    return False
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


def _abandon(error: BaseException) -> None:
  """Reports an error and exits without JAX's shutdown.

  The shutdown would wait for the other processes, which may be stuck.
  """
  who = f'[p{jax.process_index()}/{jax.process_count()}]'
  code = errors.exit_code(error)
  if isinstance(error, errors.Interrupted):
    pass  # A line was printed when the signal arrived.
  elif message := errors.temporary(error):
    print(f'{who} {message}', file=sys.stderr)
  elif hasattr(error, 'exit_code'):
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
