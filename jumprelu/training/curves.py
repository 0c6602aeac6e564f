"""The metrics that a run logged, as a table: a row per member and segment.

Reads suite.json and metrics.jsonl only. No device is used, so that the curves
of a run can be drawn while it trains on the same machine.
"""

from collections.abc import Mapping
from typing import Any

from jumprelu import errors
from jumprelu.files import folder_kinds, formats, json_files

Row = dict[str, Any]

# Fields of a member, which identify its curve.
_MEMBER = (
    'site', 'layer', 'width', 'variant', 'sparsity_coefficient', 'target_l0',
    'seed',
)  # fmt: skip


def read(run: folder_kinds.Folder, *, name: str = '') -> list[Row]:
  """Returns the table of a run, in the order of members, then of steps.

  The columns are run, model, the fields of the member, step, tokens, the
  learning rate, and all metrics of metrics.jsonl. Undefined numbers are None.

  Args:
    run: The run directory, local or remote.
    name: The value of the column `run`.

  Raises:
    MissingInputError: the folder holds no run, or the run has not logged yet.
    UserError: the folder is of another kind, such as a release.
    DataError: a file is damaged, or of a newer format.
  """
  folder_kinds.want_run(run)
  if not (run / 'config.json').exists():
    raise errors.MissingInputError(
        f'{run}: no run directory (no config.json in it)'
    )
  path = run / 'metrics.jsonl'
  suite_path = run / 'suite.json'
  lines = []
  if path.exists() and suite_path.exists():
    lines = json_files.read_lines(path, skip_unfinished=True)
  if not lines:
    raise errors.MissingInputError(
        f'{path}: no metrics yet; let `jumprelu train` run longer'
    )
  suite = formats.migrate(
      formats.Kind.RUN_SUITE,
      json_files.read_json(suite_path),
      where=str(suite_path),
  )
  try:
    members = [_Member(member) for member in suite['members']]
    model = suite['model']
  except (KeyError, TypeError) as error:
    raise errors.DataError(
        f'{suite_path}: a field is missing or of the wrong type ({error!r})'
    ) from error
  rows = []
  for member in members:
    origin = {'run': name, 'model': model, **member.fields}
    for number, line in enumerate(lines, 1):
      try:
        rows.append({**origin, **member.metrics(line)})
      except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise errors.DataError(
            f'{path}: line {number}: a field is missing or of the wrong type'
            f' ({error!r})'
        ) from error
  return rows


class _Member:
  """Selects the metrics of one member from the lines of all members."""

  def __init__(self, record: Mapping[str, Any]):
    self.fields = {name: record[name] for name in _MEMBER}
    self._group, self._index = record['group'], record['index']
    self._peak = float(record['learning_rate'])
    # The learning rate in the previous line.
    self._previous: float | None = None

  def metrics(self, line: Mapping[str, Any]) -> Row:
    """Returns the member's values in a line; lines are passed in order."""
    values = {
        name: column[self._index]
        for name, column in line['groups'][self._group].items()
    }
    rate = values.pop('learning_rate', None)
    row = {
        'step': int(line['step']),
        'tokens': int(line['tokens_trained']),
        'learning_rate': self._rate(line) if rate is None else rate,
        'sparsity': line.get('sparsity'),
        **values,
    }
    for value in row.values():
      if not (value is None or isinstance(value, int | float)):
        raise TypeError(f'{value!r} is not a number')
    return row

  def _rate(self, line: Mapping[str, Any]) -> float | None:
    """Returns the learning rate in a line.

    Earlier versions logged the schedule's factor in the same field. A resumed
    run may have lines of both kinds, so each line is read as the kind whose
    rate is nearer to that of the previous line. The first line has a factor if
    its value exceeds the peak of the learning rate.
    """
    value = line['learning_rate']
    if value is None:
      return None
    rates = value, value * self._peak
    if self._previous is None:
      # A tolerance, because the rate is logged in float32.
      rate = rates[value > self._peak * (1 + 1e-6)]
    else:
      previous = self._previous
      rate = min(rates, key=lambda rate: abs(rate - previous))
    self._previous = rate
    return rate
