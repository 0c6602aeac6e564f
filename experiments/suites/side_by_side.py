"""Obtains results of several suites at once, each in a process of its own.

A small suite leaves cores idle while it compiles, reads text or goes through its
smallest loops; two of them side by side, each on its own cores, do not. What
they print goes to files in `logs`, of which the last line is told now and then.
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

Need = suites.Suite | suites.Reading

_TELL = 30  # Seconds between looks at the logs.
_WAIT = 1.0  # Seconds between looks at whether to stop.


def obtained(
    needs: Sequence[Need],
    folder: pathlib.Path,
    *,
    jobs: int,
    on_start: Callable[[Need], None],
    should_stop: Callable[[int], bool],
) -> Iterator[Need]:
  """Yields suites and readings as they are made, `jobs` of them at once.

  Those that read or train one suite, or one text or model that has to be made,
  come one after the other.

  Args:
    needs: What is not there yet.
    folder: Where suites are kept.
    jobs: How many processes.
    on_start: Told what a process begins with.
    should_stop: Whether to have all of them save and leave.

  Raises:
    results.Preempted: `should_stop` said so.
  """
  jobs = min(jobs, len(needs))
  workers = [_Worker(folder, cores) for cores in _shares(jobs)]
  pending, told = list(needs), time.monotonic()
  try:
    while pending or any(worker.need for worker in workers):
      _hand_out(pending, workers, on_start)
      busy = [worker for worker in workers if worker.need]
      ready = connection.wait([w.pipe for w in busy], timeout=_WAIT)
      yield from [worker.result() for worker in busy if worker.pipe in ready]
      if should_stop(len(needs) - len(pending)):
        names = [worker.need.name for worker in busy if worker.need]
        raise results.Preempted(', '.join(names))
      if time.monotonic() - told > _TELL:
        told = time.monotonic()
        for worker in busy:
          worker.tell()
  finally:
    # Who is at work saves, and leaves.
    for worker in workers:
      worker.end()
    for worker in workers:
      worker.join()


def _shares(jobs: int) -> list[set[int]]:
  """Cores of each process; empty where they are too few, or cannot be bound.

  On cores of both their threads would wait for each other's turns.
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
  """Gives idle workers the first needs that nothing in work is in the way of."""
  for worker in workers:
    if worker.need:
      continue
    taken = set().union(*(_locks(w.need) for w in workers if w.need))
    free = (need for need in pending if not taken & _locks(need))
    need = next(free, None)
    if need is not None:
      pending.remove(need)
      on_start(need)
      worker.start(need)


def _locks(need: Need) -> set[str]:
  """What no two processes may make at a time."""
  suite = need.suite if isinstance(need, suites.Reading) else need
  found, configs = {suite.name}, [suite.config]
  if isinstance(need, suites.Reading):
    configs.append(need.changes)
    if need.scales_of is not None:
      found.add(need.scales_of.name)
      configs.append(need.scales_of.config)
  values = [value for config in configs for value in config.values()]
  return found | {str(v) for v in values if isinstance(v, made.Made)}


class _Worker:
  """A process that makes one thing after another."""

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
    self.need = need
    self.pipe.send(need)

  def result(self) -> Need:
    """Takes what the process answers about its need."""
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

  def tell(self) -> None:
    """Prints the last line that the process has printed."""
    if self.need is None:
      return
    try:
      lines = self._log(self.need).read_text('utf-8').splitlines()
    except OSError:
      return
    if lines:
      print(f'{self.need.name}: {lines[-1]}', file=sys.stderr, flush=True)

  def end(self) -> None:
    """Has the process save what it trains, or finish what it measures."""
    if self.need is not None:
      self._process.terminate()
    self.pipe.close()  # It hears that there is no more to do.

  def join(self) -> None:
    self._process.join()

  def _log(self, need: Need) -> pathlib.Path:
    return _log_of(need, self._folder)


def _log_of(need: Need, folder: pathlib.Path) -> pathlib.Path:
  return folder / 'logs' / f'{need.name}.log'


def _serve(
    pipe: connection.Connection, folder: pathlib.Path, cores: set[int]
) -> None:
  """What a worker does: obtains what it is sent, answers None or an error."""
  if cores:  # Before JAX counts them.
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
    except Exception as e:  # Not all of them can be sent.
      error = RuntimeError(f'{_log_of(need, folder)}: {e!r}')
    try:
      pipe.send(error)
    except OSError:  # Nobody waits for it any more.
      return


def _print_to(path: pathlib.Path) -> None:
  """Sends what this process prints, in C++ too, to the end of a file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  sys.stdout.flush()
  sys.stderr.flush()
  with path.open('ab') as file:
    for stream in (1, 2):
      os.dup2(file.fileno(), stream)
