"""SIGTERM and Ctrl-C, which end a command at any moment with one line.

A signal is acknowledged at once, by a thread, although Python runs handlers
only between two operations of the main thread, which may compile for minutes.
Usually the command then ends with an `errors.Interrupted`. If the main thread
does not get to it in time, the thread ends the process, because everything on
the disk is written so that a killed process does not damage it. During an
import the process ends as well, because libraries turn an exception in their
imports into another error, or crash.

Between the first segment of a run and its end, a signal requests a checkpoint
instead (`Signals.save_on`); a second Ctrl-C ends the command without it.
"""

import collections
from collections.abc import Callable, Collection
import contextlib
import os
import signal
import sys
import threading
import types
from typing import Any

from jumprelu import errors

# Signal -> the exit code of a command that it ends.
CODES = {
    signal.SIGTERM: errors.EXIT_PREEMPTED,
    signal.SIGINT: errors.EXIT_INTERRUPTED,
}
_NAMES = {signal.SIGTERM: 'SIGTERM', signal.SIGINT: 'Ctrl-C'}
# The seconds in which the main thread must get to a handler.
_PATIENCE = 5.0
_IMPORTING = '<frozen importlib._bootstrap>'

_current: list['Signals'] = []


def current() -> 'Signals | None':
  """Returns the innermost `Signals` whose context is open."""
  return _current[-1] if _current else None


class Signals:
  """A context that handles the signals of a command, in the main thread.

  In other threads it has no effect. A signal that was ignored when the context
  was opened remains ignored, as in a script's background jobs.
  """

  def __init__(
      self,
      prog: str = 'jumprelu',
      handled: Collection[signal.Signals] = tuple(CODES),
  ):
    self._prog = prog
    self._numbers = handled
    self._save: Callable[[signal.Signals], None] | None = None
    self._before: dict[signal.Signals, Any] = {}
    self._wakeup = (-1, -1)
    # A handler may interrupt another one.
    self._lock = threading.RLock()
    self._acknowledged: set[tuple[signal.Signals, bool]] = set()
    self._counts: collections.Counter[signal.Signals] = collections.Counter()
    self._handled = threading.Event()

  def __enter__(self) -> 'Signals':
    if threading.current_thread() is threading.main_thread():
      read, write = os.pipe()
      os.set_blocking(write, False)
      self._wakeup = read, write
      self._old_wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
      threading.Thread(target=self._watch, args=(read,), daemon=True).start()
      self.install()
      _current.append(self)
    return self

  def __exit__(self, *unused_error) -> None:
    if self not in _current:
      return
    _current.remove(self)
    for number, handler in self._before.items():
      # A run that stops because of a signal ignores it until its very end.
      kept = self._save and self._counts[number]
      signal.signal(number, signal.SIG_IGN if kept else handler)
    signal.set_wakeup_fd(self._old_wakeup)
    os.close(self._wakeup[1])  # Ends the thread.

  def install(self) -> None:
    """Installs the handlers, also in place of those of a library."""
    for number in self._numbers:
      handler = signal.getsignal(number)
      if handler is not signal.SIG_IGN:
        before = signal.signal(number, self._handle)
        self._before.setdefault(number, before)
    # Sent when the terminal is closed. A run then continues, without output.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
      self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)

  def save_on(self, save: Callable[[signal.Signals], None] | None) -> None:
    """Sets the function that is called instead of ending the command."""
    self._save = save

  def _watch(self, read: int) -> None:
    """Answers signals; runs in a thread."""
    counts = collections.Counter()
    while numbers := os.read(read, 1):
      # A server, for instance, has handlers for the same signals.
      if numbers[0] in CODES and signal.getsignal(numbers[0]) == self._handle:
        number = signal.Signals(numbers[0])
        counts[number] += 1
        saves = self._saves(number, counts[number])
        self._acknowledge(number, saves=saves)
        if not saves and not self._handled.wait(_PATIENCE):
          os._exit(CODES[number])
    os.close(read)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    """Handles a signal; runs in the main thread."""
    number = signal.Signals(number)
    self._counts[number] += 1
    saves = self._saves(number, self._counts[number])
    self._acknowledge(number, saves=saves)
    if saves and self._save:
      self._save(number)
      return
    self._handled.set()
    if _is_importing(frame):
      os._exit(CODES[number])
    if self._counts[number] == 1 or number == signal.SIGINT:
      raise errors.Interrupted(CODES[number])

  def _saves(self, number: signal.Signals, count: int) -> bool:
    insists = number == signal.SIGINT and count > 1
    return self._save is not None and not insists

  def _acknowledge(self, number: signal.Signals, *, saves: bool) -> None:
    """Prints a line, once for each kind of signal and of answer."""
    with self._lock:
      if (number, saves) in self._acknowledged:
        return
      self._acknowledged.add((number, saves))
    code = CODES[number]
    if not saves:
      text = f'leaving with {code}; the same command resumes'
    elif number == signal.SIGINT:
      text = f'will save after this segment, then exit with {code}; once more'
      text += ' to leave at once'
    else:
      text = f'will save after this segment, then exit with {code}'
    _print(f'{self._prog}: {_NAMES[number]}: {text}\n')


def _print(text: str) -> None:
  """Writes to stderr, also while the main thread is writing to it."""
  try:
    descriptor = sys.stderr.fileno()
  except (AttributeError, OSError, ValueError):  # No file, as in a notebook.
    sys.stderr.write(text)
    return
  with contextlib.suppress(OSError):  # A closed pipe.
    os.write(descriptor, text.encode())


def _is_importing(frame: types.FrameType | None) -> bool:
  while frame is not None:
    if frame.f_code.co_filename == _IMPORTING:
      return True
    frame = frame.f_back
  return False
