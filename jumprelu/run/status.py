"""Shows the state of runs; exits 1 if a run has failed or is stale.

Prints a table from the STATUS.json files of run directories: state, step, share
of all steps, tokens per second, and the time since the last update. A run is
stale if it is unfinished and has not been updated for --stale_minutes, or if
its last update is in the future, because a clock was set back. Also exits 1 if
a STATUS.json cannot be read, or if a run on this computer ended before its
first step. An argument is a run directory, or a folder with run directories in
it, up to four levels deep. Only reads files; uses no device.

  jumprelu status runs/scope-2b
  jumprelu status runs/a runs/b --stale_minutes=10
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import datetime
import os
import sys
import time
from typing import Any

from absl import flags

from jumprelu import errors, extras
from jumprelu.files import folder_kinds, json_files, locks, remote
from jumprelu.run import main

POSITIONAL = 'runs'

# States that need attention.
_BAD = ('failed', 'unreadable', 'never started')

# Seconds by which an update may be in the future. Beyond them, the clock of
# this computer or of the run's was set back, and its age is unknown.
_CLOCKS = 300.0

# Levels of folders that are searched for runs.
_LEVELS = 4


@dataclasses.dataclass(frozen=True)
class RunStatus:
  """The state of one run."""

  name: str
  # The state in STATUS.json, or 'unreadable' if it is damaged. While that file
  # is missing, 'starting' or 'never started'.
  state: str
  step: int = 0
  total_steps: int = 0
  tokens_per_second: float = 0.0
  age: float = 0.0  # Seconds since the last update.
  stale: bool = False
  error: str = ''

  @property
  def is_bad(self) -> bool:
    """Whether the run needs attention."""
    return self.stale or self.state in _BAD


def define_flags(fv: flags.FlagValues):
  """Declares the command's flags."""
  flags.DEFINE_list(
      'runs', [], 'Run directories, or folders of them.', flag_values=fv
  )
  flags.DEFINE_float(
      'stale_minutes',
      60.0,
      'An unfinished run is stale if it was not updated for this many minutes.'
      ' Each checkpoint updates it.',
      lower_bound=0.0,
      flag_values=fv,
  )


def run(fv: flags.FlagValues) -> int:
  """Prints the table; returns 1 if a run needs attention."""
  if not fv.runs:
    raise errors.UserError('no run directory: use jumprelu status DIR...')
  now, stale_after = time.time(), 60 * fv.stale_minutes
  runs = [
      read(path, now=now, stale_after=stale_after) for path in find(fv.runs)
  ]
  print(table(runs))
  return int(any(status.is_bad for status in runs))


def find(paths: Iterable[str]) -> list[folder_kinds.Folder]:
  """Returns the run directories among `paths` and in these folders.

  Raises:
    MissingInputError: a path is neither a run directory nor a folder of them.
    UserError: a path is a release, a part of one, or a folder of releases.
  """
  directories = []
  for text in paths:
    path = _path(text)
    children = []
    if not _is_run(path) and path.is_dir():
      children = list(_inside(path, _LEVELS))
    if not children and not _is_run(path):
      folder_kinds.want_run(path)
      raise errors.MissingInputError(
          f'{text}: neither a run directory, which has a config.json, nor a'
          ' folder of run directories'
      )
    directories += children or [path]
  return [
      run
      for path in directories
      for run in (path, *folder_kinds.added_runs(path))
  ]


def read(
    path: folder_kinds.Folder, *, now: float, stale_after: float
) -> RunStatus:
  """Returns the state of a run.

  Args:
    path: The run directory.
    now: The current time, in seconds since the epoch.
    stale_after: The seconds without an update after which an unfinished run is
      stale.
  """
  name = str(path)
  status = path / 'STATUS.json'
  try:
    if not status.exists():
      return _unstarted(path, now=now, stale_after=stale_after)
    record = json_files.read_json(status)
    age = now - _seconds(record['updated'])
    trained, seconds = record.get('tokens_trained', 0), record.get('seconds', 0)
    return RunStatus(
        name,
        str(record['state']),
        step=_steps(record.get('step', 0)),
        total_steps=_steps(record.get('total_steps', 0)),
        tokens_per_second=trained / seconds if seconds else 0.0,
        age=age,
        # Clocks of two computers may differ a little.
        stale=record['state'] in ('running', 'preempted')
        and not -_CLOCKS <= age <= stale_after,
        error=str(record.get('error', '')),
    )
  except errors.DataError as error:
    return RunStatus(name, 'unreadable', error=str(error))
  except (ValueError, KeyError, TypeError, OverflowError) as error:
    return RunStatus(name, 'unreadable', error=f'STATUS.json: {error!r}')


def _steps(value: Any) -> int:
  """Returns a number of steps; raises ValueError if no run has so large a one."""
  if not 0 <= value < 2**53:
    raise ValueError(f'{value!r:.40}: not a number of steps')
  return int(value)


def _unstarted(
    path: folder_kinds.Folder, *, now: float, stale_after: float
) -> RunStatus:
  """Returns the state of a run without STATUS.json."""
  age = now - (path / 'config.json').stat().mtime
  if not locks.was_freed(path / 'run.lock'):
    stale = age > stale_after
    return RunStatus(str(path), 'starting', age=age, stale=stale)
  return RunStatus(
      str(path),
      'never started',
      age=age,
      error='its process ended before the first step; run its command again to'
      ' see the error',
  )


def table(runs: Sequence[RunStatus]) -> str:
  """Returns a table with one line per run, and a line for each error."""
  head = ('run', 'state', 'step', 'of', 'share', 'tokens/s', 'updated')
  rows = [head, *map(_row, runs)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    name, state, *numbers = row
    cells = [name.ljust(widths[0]), state.ljust(widths[1])]
    cells += [x.rjust(w) for x, w in zip(numbers, widths[2:], strict=True)]
    lines.append('  '.join(cells))
  messages = [f'{run.name}: {run.error}' for run in runs if run.error]
  return '\n'.join([*lines, *(' '.join(m.split()) for m in messages)])


def _row(run: RunStatus) -> tuple[str, ...]:
  """Returns a run's line of the table."""
  share = f'{run.step / run.total_steps:.1%}' if run.total_steps else '-'
  rate = run.tokens_per_second
  return (
      run.name,
      run.state + (' (stale)' if run.stale else ''),
      str(run.step),
      str(run.total_steps) if run.total_steps else '-',
      share,
      f'{rate:,.0f}' if rate else '-',
      '-' if run.state == 'unreadable' else _ago(run.age),
  )


def _ago(seconds: float) -> str:
  """Returns a duration in its largest unit, such as '3 min ago'."""
  if seconds < -_CLOCKS:
    return 'in the future'
  for unit, size in (('d', 86_400), ('h', 3600), ('min', 60)):
    if seconds >= size:
      return f'{seconds / size:.0f} {unit} ago'
  return f'{max(seconds, 0):.0f} s ago'


def _inside(
    folder: folder_kinds.Folder, levels: int
) -> Iterator[folder_kinds.Folder]:
  """Yields the run directories in a folder, outside releases and other runs.

  Hidden folders are skipped, and links to folders of runs are not followed.
  """
  for child in sorted(folder.iterdir()):
    if child.name.startswith('.') or not child.is_dir():
      continue
    if folder_kinds.is_run(child):
      yield child
    elif levels > 1 and not (_is_link(child) or folder_kinds.is_release(child)):
      yield from _inside(child, levels - 1)


def _is_link(path: folder_kinds.Folder) -> bool:
  return not remote.is_remote(path) and os.path.islink(path)


def _is_run(path: folder_kinds.Folder) -> bool:
  return (path / 'config.json').exists()


def _path(text: str) -> folder_kinds.Folder:
  """Returns a local path, or a path in remote storage with the same methods."""
  # Imported on use, because the import would slow down --help.
  with extras.imports():
    from etils import epath

  return epath.Path(os.path.expanduser(text))


def _seconds(text: Any) -> float:
  """Returns a time of STATUS.json in seconds since the epoch."""
  when = datetime.datetime.strptime(text, '%Y-%m-%dT%H:%M:%SZ')
  return when.replace(tzinfo=datetime.UTC).timestamp()


if __name__ == '__main__':
  sys.exit(main.launch('status'))
