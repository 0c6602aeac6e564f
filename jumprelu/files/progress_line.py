"""Progress lines of a long loop, printed to stderr."""

from collections.abc import Iterable, Iterator
import sys
import time
from typing import TypeVar

_Item = TypeVar('_Item')

_SECONDS = 10


class ProgressLine:
  """Prints the progress of a loop, at most one line every ten seconds."""

  def __init__(self, name: str, total: int, *, quiet: bool = False):
    """Starts the clock.

    Args:
      name: The start of each line.
      total: The number of iterations.
      quiet: Whether to print nothing.
    """
    self._name, self._total, self._quiet = name, total, quiet
    self._start = self._printed = time.monotonic()

  def over(self, items: Iterable[_Item]) -> Iterator[_Item]:
    """Yields the items, and calls `update` before each."""
    for done, item in enumerate(items):
      self.update(done)
      yield item

  def update(self, done: int) -> None:
    """Prints the share done and the time left, if a line is due.

    Args:
      done: The number of finished iterations.
    """
    now = time.monotonic()
    if self._quiet or not done or now - self._printed < _SECONDS:
      return
    self._printed = now
    left = (now - self._start) * (self._total - done) / done
    print(
        f'{self._name}: {done / self._total:.0%}, {left:.0f} s left',
        file=sys.stderr,
        flush=True,
    )
