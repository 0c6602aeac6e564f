"""Runs cases of one reader after the other, in a process of its own.

A case is a file of the reader's valid inputs with seeded changes. It passes if
the command line would end with one line of its own (`jumprelu/run/main.py`), or
if the values are unchanged or of a kind that the format cannot protect.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import os
import pathlib
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import types
from typing import Any

from experiments.reliability.readers import base, registry
from jumprelu import errors
from jumprelu.run import main

CLEAN, ACCEPTED = 'clean', 'accepted'
TRACEBACK, WRONG, HANG, CRASH = 'traceback', 'wrong', 'hang', 'crash'
FAILURES = (CRASH, HANG, TRACEBACK, WRONG)

# A case may use this much more memory than the process had before, and this
# much time, which includes that of other processes on a busy machine.
_MEMORY = 2**30
_SECONDS = 10.0
# Part of the cases that change a folder and not the bytes of a file.
_FOLDER_SHARE = 0.01
# Events that no reader may cause (see Python's table of audit events).
_FORBIDDEN = frozenset((
    'os.system', 'os.exec', 'os.fork', 'os.posix_spawn', 'os.spawn',
    'subprocess.Popen', 'socket.connect', 'socket.bind', 'pickle.find_class',
    'ctypes.dlopen', 'urllib.Request', 'webbrowser.open',
))  # fmt: skip
_CHANGES = frozenset((
    'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.link', 'os.symlink',
    'os.truncate', 'os.chmod', 'shutil.rmtree', 'shutil.move', 'open',
))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The outcome of a case, with the reason of a failure."""

  kind: str
  reason: str = ''


class Bench:
  """A folder with the valid inputs of a reader, in which cases are run."""

  def __init__(self, reader: base.Reader, folder: pathlib.Path):
    """Writes the inputs to an empty folder, and reads them once."""
    self._reader = reader
    self._folder = folder
    reader.make(folder)
    self._originals = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }
    self._targets = {
        name: changes
        for name in self._originals
        if (changes := _changes(reader, name))
    }
    self._valid = base.fingerprint(reader.read(folder))
    self._restore()

  def run(self, seed: int, number: int) -> Outcome:
    """Returns the outcome of a case, which `seed` and `number` determine."""
    rng = random.Random(f'{self._reader.name} {seed} {number}')
    name = rng.choice(list(self._targets))
    path = self._folder / name
    try:
      if not self._reader.is_checked and rng.random() < _FOLDER_SHARE:
        _change_folder(path, rng)
        is_protected = False
      else:
        change, is_protected = rng.choice(self._targets[name])
        path.write_bytes(change(self._originals[name], rng))
      return self._outcome(path, is_protected)
    finally:
      self._restore(path)

  def _outcome(self, path: pathlib.Path, is_protected: bool) -> Outcome:
    outcome, values = Outcome(ACCEPTED), None
    started = time.monotonic()
    with _watched(self._folder) as events:
      try:
        values = self._reader.read(self._folder)
      except errors.UserError:  # The usual end, for which `main` is slow.
        outcome = Outcome(CLEAN)
      except base.Wrong as error:
        outcome = Outcome(WRONG, str(error))
      except BaseException as error:
        outcome = _as_command(error)
    if events:
      return Outcome(WRONG, f'caused {events[0]}')
    if (seconds := time.monotonic() - started) > _SECONDS:
      return Outcome(HANG, f'{seconds:.0f} s')
    is_accepted = outcome.kind == ACCEPTED
    if is_accepted and is_protected and self._was_wrong(path, values):
      return Outcome(WRONG, f'{path.name} was accepted')
    return outcome

  def _was_wrong(self, path: pathlib.Path, values: Any) -> bool:
    """Returns whether damage was accepted that the reader has to find."""
    if self._reader.protection is base.Protection.BYTES:
      name = path.relative_to(self._folder).as_posix()
      return path.read_bytes() != self._originals[name]
    return base.fingerprint(values) != self._valid

  def _restore(self, changed: pathlib.Path | None = None) -> None:
    """Restores the file, or all files if the reader may have changed others."""
    if changed is None or self._reader.writes or not changed.is_file():
      for path in self._folder.iterdir():
        _remove(path)
      for name, content in self._originals.items():
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    elif changed.is_symlink():
      changed.unlink()
      self._restore()
    else:
      name = changed.relative_to(self._folder).as_posix()
      changed.write_bytes(self._originals[name])


def _as_command(error: BaseException) -> Outcome:
  """Returns whether a command that raises the error ends with one line."""

  def fail(flag_values):
    del flag_values
    raise error

  command: Any = types.SimpleNamespace(define_flags=lambda fv: None, run=fail)
  try:
    main.run_command(command, 'fuzz', [])
  except BaseException:
    return Outcome(TRACEBACK, _reason(error))
  return Outcome(CLEAN)


def _changes(
    reader: base.Reader, name: str
) -> list[tuple[base.Mutation, bool]]:
  """Returns the changes of a file, and whether the reader has to find them."""
  protected = reader.protection is not base.Protection.NONE and not any(
      _matches(name, pattern) for pattern in reader.unprotected
  )
  result = []
  for changes, has_digest in (
      (reader.mutations, protected), (reader.anew, False)
  ):  # fmt: skip
    for pattern, functions in changes.items():
      if _matches(name, pattern):
        result += [(function, has_digest) for function in functions]
  return result


def _matches(name: str, pattern: str) -> bool:
  """Returns whether a pattern, in which **/ is any folder, names a path."""
  parts = re.split(r'(\*\*/|\*\*|\*)', pattern)
  known = {'**/': '(.*/)?', '**': '.*', '*': '[^/]*'}
  expression = ''.join(known.get(p) or re.escape(p) for p in parts)
  return re.fullmatch(expression, name) is not None


def _change_folder(path: pathlib.Path, rng: random.Random) -> None:
  """Replaces a file by nothing, a folder, a loop of links or another file."""
  other = rng.choice(sorted(path.parent.iterdir()))
  path.unlink()
  kind = rng.randrange(4)
  if kind == 0:
    path.mkdir()
  elif kind == 1:
    path.symlink_to(path.name)
  elif kind == 2 and other != path:
    path.symlink_to(other.name)


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    base.remove(path)
  else:
    path.unlink()


_events: list[str] = []
_allowed: list[str] = []


@contextlib.contextmanager
def _watched(folder: pathlib.Path) -> Iterator[list[str]]:
  """Collects forbidden events, such as a file written outside the folder."""
  _events.clear()
  _allowed.append(str(folder))
  try:
    yield _events
  finally:
    _allowed.clear()


def _audit(event: str, args: tuple[Any, ...]) -> None:
  if not _allowed:
    return
  if event in _FORBIDDEN:
    _events.append(f'{event} {args!r:.200}')
  elif event in _CHANGES:
    if event == 'open' and not _writes(*args[1:3]):
      return
    for place in args[:1] if event == 'open' else args[:2]:
      if isinstance(place, str | bytes | os.PathLike):
        text = os.path.realpath(os.fsdecode(place))
        if not text.startswith((_allowed[0], '/dev/null')):
          _events.append(f'{event} {text:.200}')


def _writes(mode: Any, flags: Any) -> bool:
  """Returns whether a file is opened for writing."""
  if isinstance(mode, str):
    return any(letter in mode for letter in 'wax+')
  return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _reason(error: BaseException) -> str:
  """Returns the error, and the last line of this package that raised it."""
  frames = traceback.extract_tb(error.__traceback__)
  ours = [f for f in frames if f'{os.sep}jumprelu{os.sep}' in f.filename]
  last = (ours or frames)[-1]
  place = f'{"/".join(last.filename.split(os.sep)[-3:])}:{last.lineno}'
  return f'{type(error).__name__} {place} {str(error)[:200]}'


def _limit_memory() -> None:
  """Limits the address space to its present size and `_MEMORY` more."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  limit = pages * resource.getpagesize() + _MEMORY
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]
  resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _free_memory() -> None:
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]
  resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def scratch() -> tempfile.TemporaryDirectory[str]:
  """Returns a new temporary folder, in memory if the system has such."""
  shared = '/dev/shm'
  place = shared if os.access(shared, os.W_OK) else None
  return tempfile.TemporaryDirectory(prefix='fuzz.', dir=place)


def run(
    name: str,
    seed: int,
    numbers: Iterator[int],
    *,
    seconds: float,
    started: Callable[[int], None] = lambda number: None,
    ended: Callable[[int, Outcome], None],
) -> dict[str, int]:
  """Runs cases of a reader until the time is over; returns counts by kind.

  Args:
    name: The reader.
    seed: The seed of the cases.
    numbers: The numbers of the cases.
    seconds: The time; at least one case is run.
    started: Is called with the number of a case before it is run.
    ended: Is called with the number and the outcome of a case.
  """
  counts: collections.Counter[str] = collections.Counter()
  with scratch() as folder:
    bench = Bench(registry.all_readers()[name], pathlib.Path(folder).resolve())
    _limit_memory()
    try:
      end = time.monotonic() + seconds
      for number in numbers:
        started(number)
        outcome = bench.run(seed, number)
        counts[outcome.kind] += 1
        ended(number, outcome)
        if time.monotonic() > end:
          break
    finally:
      _free_memory()
  return dict(counts)


def serve(connection: Any, current: Any) -> None:
  """Runs the tasks that arrive, as the main function of a worker process.

  Args:
    connection: Yields tasks (name, seed, numbers, seconds); gets
      ('failed', number, kind, reason) and, at the end, ('done', counts).
    current: Gets the number of the running case, and the numbers of cases that
      were started, that were clean and that were accepted.
  """
  _silence()
  sys.addaudithook(_audit)

  def started(number):
    current[0] = number
    current[1] += 1

  def ended(number, outcome):
    if outcome.kind in FAILURES:
      connection.send(('failed', number, outcome.kind, outcome.reason))
    elif outcome.kind == CLEAN:
      current[2] += 1
    else:
      current[3] += 1

  while task := connection.recv():
    name, seed, numbers, seconds = task
    counts = run(
        name, seed, numbers, seconds=seconds, started=started, ended=ended
    )
    connection.send(('done', counts))


def _silence() -> None:
  """Drops all output, which would be an error line for each case."""
  null = os.open(os.devnull, os.O_WRONLY)
  os.dup2(null, 1)
  os.dup2(null, 2)
