"""The state of the runs of a fleet, from the files in their directories.

Only reads files and uses no device, so that it is safe during a run.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import datetime
import json
import os

from jumprelu import errors, extras
from jumprelu.files import folder_kinds

with extras.imports():
  from etils import epath

# States that need attention.
_BAD = ('failed', 'unreadable')


@dataclasses.dataclass(frozen=True)
class RunStatus:
  """The state of one run."""

  name: str
  # STATUS.json's state; 'starting' before that exists; or 'unreadable'.
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


def find(paths: Iterable[str]) -> list[epath.Path]:
  """Returns the run directories among `paths` and directly inside them."""
  directories = []
  for text in paths:
    path = epath.Path(os.path.expanduser(text))
    children = []
    if not _is_run(path) and path.is_dir():
      children = sorted(child for child in path.iterdir() if _is_run(child))
    if not children and not _is_run(path):
      folder_kinds.want_run(path)
      raise errors.MissingInputError(
          f'{text}: neither a run directory (no config.json in it) nor a folder'
          ' of them'
      )
    directories += children or [path]
  return directories


def read(path: epath.Path, *, now: float, stale_after: float) -> RunStatus:
  """Returns the state of one run, stale after `stale_after` silent seconds."""
  name = str(path)
  status = path / 'STATUS.json'
  try:
    if not status.exists():
      age = now - (path / 'config.json').stat().mtime
      return RunStatus(name, 'starting', age=age, stale=age > stale_after)
    record = json.loads(status.read_text())
    age = now - _seconds(record['updated'])
    trained, seconds = record.get('tokens_trained', 0), record.get('seconds', 0)
    return RunStatus(
        name,
        str(record['state']),
        step=int(record.get('step', 0)),
        total_steps=int(record.get('total_steps', 0)),
        tokens_per_second=trained / seconds if seconds else 0.0,
        age=age,
        stale=record['state'] in ('running', 'preempted') and age > stale_after,
        error=str(record.get('error', '')),
    )
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    return RunStatus(name, 'unreadable', error=f'STATUS.json: {error!r}')


def table(runs: Sequence[RunStatus]) -> str:
  """Returns a table with one line per run, and the errors of failed runs."""
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
  for unit, size in (('d', 86_400), ('h', 3600), ('min', 60)):
    if seconds >= size:
      return f'{seconds / size:.0f} {unit} ago'
  return f'{max(seconds, 0):.0f} s ago'


def _is_run(path: epath.Path) -> bool:
  return (path / 'config.json').exists()


def _seconds(text: str) -> float:
  """Returns a time of `RunDir.write_status` in seconds since the epoch."""
  when = datetime.datetime.strptime(text, '%Y-%m-%dT%H:%M:%SZ')
  return when.replace(tzinfo=datetime.UTC).timestamp()
