"""The process that runs cases of fuzz, started anew when it hangs or dies."""

from collections.abc import Callable, Iterator
import dataclasses
import multiprocessing
import time
from typing import Any

# A worker that is at one case for longer than this has hung.
HANG_SECONDS = 30.0


@dataclasses.dataclass
class Slice:
  """The outcome of a slice of cases.

  Attributes:
    count: The number of cases, failures included.
    counts: The numbers of outcomes by kind; without those of a slice that a
      crash or hang ended.
    failures: (number, kind, reason) of each failure.
  """

  count: int
  counts: dict[str, int]
  failures: list[tuple[int, str, str]]


class Worker:
  """A process that runs cases, started anew when it hangs or dies."""

  def __init__(self, serve: Callable[[Any, Any], None] | None = None):
    """Takes the main function of the process; that of `worker.py` if None."""
    self._serve = serve
    self._context = multiprocessing.get_context('spawn')
    self._process: Any = None
    self._connection: Any = None
    # The number and the kinds of outcomes of the running slice.
    self._current = self._context.RawArray('q', 4)

  def run(
      self, name: str, seed: int, numbers: Iterator[int], *, seconds: float
  ) -> Slice:
    """Runs cases until the time is over, or until one hangs or crashes."""
    if self._process is None:
      self._start()
    for i in range(4):
      self._current[i] = 0
    self._connection.send((name, seed, numbers, seconds))
    failures: list[tuple[int, str, str]] = []
    seen, since = -1, time.monotonic()
    while True:
      try:
        while self._connection.poll(0.2):
          kind, *rest = self._connection.recv()
          if kind == 'done':
            counts = rest[0]
            return Slice(sum(counts.values()), counts, failures)
          failures.append(tuple(rest))
      except (EOFError, ConnectionError):
        self._process.join()
        return self._ended('crash', f'exit {self._process.exitcode}', failures)
      if self._current[1] != seen:
        seen, since = self._current[1], time.monotonic()
      elif time.monotonic() - since > HANG_SECONDS and seen:
        return self._ended('hang', f'{HANG_SECONDS:.0f} s', failures)

  def _ended(self, kind: str, reason: str, failures: list) -> Slice:
    """Returns the part of a slice up to the case that ended the worker."""
    number, started, clean, accepted = self._current
    if not started:
      raise RuntimeError(f'the worker ended before the first case ({reason})')
    self.stop()
    failures.append((number, kind, reason))
    return Slice(started, {'clean': clean, 'accepted': accepted}, failures)

  def stop(self) -> None:
    """Ends the process."""
    if self._process is not None:
      self._process.kill()
      self._process.join()
    self._process = None

  def _start(self) -> None:
    # Imported by the new process, too.
    from experiments.reliability import worker

    serve = self._serve or worker.serve
    self._connection, theirs = self._context.Pipe()
    self._process = self._context.Process(
        target=serve, args=(theirs, self._current), daemon=True
    )
    self._process.start()
    theirs.close()
