"""Makes several suites at once, each in a separate process.

A small suite leaves cores idle while it compiles, reads text or runs small
loops. Two suites, each bound to its own cores, leave fewer cores idle. The
processes write their output to files in `logs`, and this process regularly
prints the last line of each file.
"""

from collections.abc import Callable, Iterator, Sequence
import multiprocessing
from multiprocessing import connection
import os
import pathlib
import sys
import time

from experiments.nano import made
from experiments.suites import results, suites
from jumprelu import errors

# A suite or reading that a figure needs.
Need = suites.Suite | suites.Reading

_REPORT_SECONDS = 30  # Between reports of the logs' last lines.
_POLL_SECONDS = 1.0  # Between calls of `should_stop`.


def obtained(
    needs: Sequence[Need],
    folder: pathlib.Path,
    *,
    jobs: int,
    on_start: Callable[[Need], None],
    should_stop: Callable[[int], bool],
) -> Iterator[Need]:
  """Makes `jobs` suites and readings at a time; yields each when it is done.

  Two needs never run at the same time if they use the same suite, or the same
  text or model that has to be made.

  Args:
    needs: Suites and readings that are not stored yet.
    folder: The folder of all suites.
    jobs: The number of processes.
    on_start: Called with each need when a process starts it.
    should_stop: Whether all processes should save and exit.

  Raises:
    results.Preempted: `should_stop` returned true.
  """
  jobs = min(jobs, len(needs))
  workers = [_Worker(folder, cores) for cores in _shares(jobs)]
  pending, reported = list(needs), time.monotonic()
  try:
    while pending or any(worker.need for worker in workers):
      _hand_out(pending, workers, on_start)
      busy = [worker for worker in workers if worker.need]
      ready = connection.wait([w.pipe for w in busy], timeout=_POLL_SECONDS)
      yield from [worker.result() for worker in busy if worker.pipe in ready]
      if should_stop(len(needs) - len(pending)):
        names = [worker.need.name for worker in busy if worker.need]
        raise results.Preempted(', '.join(names))
      if time.monotonic() - reported > _REPORT_SECONDS:
        reported = time.monotonic()
        for worker in busy:
          worker.report()
  finally:
    # Busy processes save a checkpoint and exit.
    for worker in workers:
      worker.end()
    for worker in workers:
      worker.join()


def _shares(jobs: int) -> list[set[int]]:
  """Returns the cores of each process, or empty sets for unbound processes.

  Processes are bound to disjoint cores, because their threads would otherwise
  compete. They are not bound if there are too few cores or the platform cannot
  bind processes.
  """
  if not hasattr(os, 'sched_getaffinity'):
    return [set()] * jobs
  cores = sorted(os.sched_getaffinity(0))
  if len(cores) < jobs:
    return [set()] * jobs
  return [set(cores[i::jobs]) for i in range(jobs)]


def _hand_out(
    pending: list[Need],
    workers: Sequence['_Worker'],
    on_start: Callable[[Need], None],
) -> None:
  """Starts the first need without a conflict on each idle worker."""
  for worker in workers:
    if worker.need:
      continue
    locked = set().union(*(_locks(w.need) for w in workers if w.need))
    free = (need for need in pending if not locked & _locks(need))
    need = next(free, None)
    if need is not None:
      pending.remove(need)
      on_start(need)
      worker.start(need)


def _locks(need: Need) -> set[str]:
  """Returns the suites, texts and models that only one need may use at once."""
  suite = need.suite if isinstance(need, suites.Reading) else need
  names, configs = {suite.name}, [suite.config]
  if isinstance(need, suites.Reading):
    configs.append(need.changes)
    if need.scales_of is not None:
      names.add(need.scales_of.name)
      configs.append(need.scales_of.config)
  values = [value for config in configs for value in config.values()]
  return names | {str(v) for v in values if isinstance(v, made.Made)}


class _Worker:
  """A process that makes one need after another."""

  def __init__(self, folder: pathlib.Path, cores: set[int]):
    # A fork would share the threads that JAX has started.
    context = multiprocessing.get_context('spawn')
    self.pipe, other = context.Pipe()
    self.need: Need | None = None
    self._folder = folder
    self._process = context.Process(
        target=_serve, args=(other, folder, cores), daemon=True
    )
    self._process.start()
    other.close()

  def start(self, need: Need) -> None:
    """Sends a need to the idle process."""
    self.need = need
    self.pipe.send(need)

  def result(self) -> Need:
    """Returns the need that the process has made; raises an error it sent."""
    need, self.need = self.need, None
    try:
      error = self.pipe.recv()
    except EOFError:
      self._process.join()
      code = self._process.exitcode
      error = errors.UserError(f'{self._log(need)}: ended with code {code}')
    if error is not None:
      raise error
    return need

  def report(self) -> None:
    """Prints the last line of the process's log."""
    if self.need is None:
      return
    try:
      lines = self._log(self.need).read_text('utf-8').splitlines()
    except OSError:
      return
    if lines:
      print(f'{self.need.name}: {lines[-1]}', file=sys.stderr, flush=True)

  def end(self) -> None:
    """Asks the process to save its training, or finish measuring, and exit."""
    if self.need is not None:
      self._process.terminate()
    self.pipe.close()  # An idle process exits when its pipe is closed.

  def join(self) -> None:
    """Waits until the process has exited."""
    self._process.join()

  def _log(self, need: Need) -> pathlib.Path:
    return _log_of(need, self._folder)


def _log_of(need: Need, folder: pathlib.Path) -> pathlib.Path:
  return folder / 'logs' / f'{need.name}.log'


def _serve(
    pipe: connection.Connection, folder: pathlib.Path, cores: set[int]
) -> None:
  """Makes each need that it receives, and answers None or an error."""
  if cores:  # Bound before JAX counts the cores.
    os.sched_setaffinity(0, cores)
  from jumprelu.run import preemption as preemption_lib

  while True:
    try:
      need = pipe.recv()
    except (EOFError, OSError):
      return
    _print_to(_log_of(need, folder))
    error = None
    try:
      config = preemption_lib.Config(watchdog_seconds=0)
      with preemption_lib.start(config) as preemption:
        results.obtain(need, folder, should_stop=preemption.reached)
    except (results.Preempted, errors.UserError) as e:
      error = e
    except Exception as e:  # Sent as text, because not all can be pickled.
      error = RuntimeError(f'{_log_of(need, folder)}: {e!r}')
    try:
      pipe.send(error)
    except OSError:  # The parent no longer waits for the answer.
      return


def _print_to(path: pathlib.Path) -> None:
  """Redirects this process's output, including C++ output, to a file's end."""
  path.parent.mkdir(parents=True, exist_ok=True)
  sys.stdout.flush()
  sys.stderr.flush()
  with path.open('ab') as file:
    for stream in (1, 2):
      os.dup2(file.fileno(), stream)
