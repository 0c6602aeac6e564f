"""The metrics that a run logged, as a table: a row per member and segment.

Reads suite.json and metrics.jsonl only. No device is used, so that the curves
of a run can be drawn while it trains on the same machine.
"""

from collections.abc import Mapping
from typing import Any

from jumprelu import errors, lm
from jumprelu.files import folder_kinds, formats, json_files

Row = dict[str, Any]

# Fields of a member, which identify its curve.
_MEMBER = (
    'site', 'layer', 'width', 'variant', 'sparsity_coefficient', 'target_l0',
    'seed',
)  # fmt: skip


def read(
    run: folder_kinds.Folder, *, name: str = '', limit: int = 0
) -> list[Row]:
  """Returns the table of a run, in the order of members, then of steps.

  The columns are run, model, the fields of the member, step, tokens, the
  learning rate, and all metrics of metrics.jsonl. Undefined numbers are None.

  Args:
    run: The run directory, local or remote.
    name: The value of the column `run`.
    limit: The largest number of segments, which are evenly spaced, the last one
      included; 0 for all.

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
  lines = {}
  if path.exists() and suite_path.exists():
    lines = json_files.read_some_lines(path, limit=limit, skip_unfinished=True)
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
    for number, line in lines.items():
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
    if self.fields['site'] not in lm.SITES:
      raise KeyError(self.fields['site'])

  def metrics(self, line: Mapping[str, Any]) -> Row:
    """Returns the member's values in a line."""
    rate, sparsity = line['learning_rate'], line.get('sparsity_factor')
    if 'sparsity' in line:
      # Earlier versions logged the schedule's factor as the learning rate. A
      # resumed run has lines of both kinds.
      sparsity = line['sparsity']
      rate = None if rate is None else rate * self._peak
    metrics = line['groups'][self._group]
    row = {
        'step': int(line['step']),
        'tokens': int(line['tokens_trained']),
        'learning_rate': rate,
        'sparsity_factor': sparsity,
        **{name: column[self._index] for name, column in metrics.items()},
    }
    for name, value in row.items():
      if not isinstance(value, int | float | None):
        raise TypeError(f'{name} is not a number')
    return row
