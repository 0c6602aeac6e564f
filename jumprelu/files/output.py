"""Output that must not end a run, and output that nobody should see."""

from collections.abc import Iterator
import contextlib
import errno
import os
import sys
from typing import Any

_STDERR = 2


# A closed pipe, and a closed terminal.
_CLOSED = (errno.EPIPE, errno.EIO)


class _Tolerant:
  """A text stream that drops all text after its reader has gone."""

  def __init__(self, stream: Any):
    self._stream = stream
    self._closed = False

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Writes text, or drops it."""
    if not self._closed:
      with self._noting():
        self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Writes buffered text, or drops it."""
    if not self._closed:
      with self._noting():
        self._stream.flush()

  @contextlib.contextmanager
  def _noting(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      if error.errno not in _CLOSED:
        raise
      self._closed = True


@contextlib.contextmanager
def dropped_if_closed() -> Iterator[None]:
  """Drops text to stdout and stderr after the pipe or terminal was closed.

  `jumprelu train ... 2>&1 | head` therefore trains to the end, and the table of
  `jumprelu status | head` ends quietly.
  """
  before = sys.stdout, sys.stderr
  tolerant = _Tolerant(before[0]), _Tolerant(before[1])
  sys.stdout, sys.stderr = (
      tolerant  # pyright: ignore[reportAttributeAccessIssue]
  )
  try:
    yield
    tolerant[0].flush()
  finally:
    sys.stdout, sys.stderr = before
    for stream in tolerant:
      if stream._closed:
        # Python would flush the buffer again at exit, and fail.
        _discard(stream)


@contextlib.contextmanager
def native_dropped() -> Iterator[None]:
  """Drops what libraries in C++ write to stderr, whatever their log level.

  Text that Python prints to stderr is shown, for instance the stacks of the
  watchdog and the acknowledgement of a signal, which other threads may print
  meanwhile.
  """
  try:
    is_native = sys.stderr.fileno() == _STDERR
  except (AttributeError, OSError, ValueError):  # No file, as in a notebook.
    is_native = False
  sys.stderr.flush()
  kept, before = os.dup(_STDERR), sys.stderr
  with open(os.devnull, 'w', encoding='utf-8') as null:
    os.dup2(null.fileno(), _STDERR)
  with os.fdopen(kept, 'w', encoding='utf-8', buffering=1) as python:
    if is_native:
      sys.stderr = _Tolerant(
          python
      )  # pyright: ignore[reportAttributeAccessIssue]
    try:
      yield
    finally:
      sys.stderr.flush()
      sys.stderr = before
      os.dup2(kept, _STDERR)


def _discard(stream: Any) -> None:
  with contextlib.suppress(OSError, ValueError, AttributeError):
    descriptor = stream.fileno()
    with open(os.devnull, 'w', encoding='utf-8') as null:
      os.dup2(null.fileno(), descriptor)
