"""Reads metrics.jsonl, the metrics of a run by segment.

Each line describes a segment of steps, as an object with the fields

  step            the number of steps at the end of the segment
  tokens_trained, rows_dropped, seconds, positions
                  totals of the run at the end of the segment
  learning_rate   the learning rate of the last step
  sparsity_factor the factor of all sparsity coefficients in the last step,
                  which the sparsity warm-up raises from 0 to 1
  members         {group: names of its members}
  groups          {group: {metric: values in the order of the names}}: loss,
                  reconstruction, fvu, l0 and overflow as means over the
                  segment; dead_share, skipped and threshold (the mean over
                  latents, in units of the scaled activations; only of variants
                  with thresholds) at its end

Site, coefficient, target L0 and seed of each name are in suite.json.

Lines of versions before `members` have the field `sparsity` in place of
`sparsity_factor`, and their `learning_rate` is a factor too: the part of the
peak rate that the schedule has reached. `read` converts them, so that callers
see rates only. A run that a newer version has resumed has lines of both kinds.
"""

from collections.abc import Mapping
from typing import Any

from jumprelu import errors, lm
from jumprelu.files import folder_kinds, formats, json_files
from jumprelu.training import suite as suite_lib

Row = dict[str, Any]

# Fields of a member, which identify its curve.
_MEMBER = (
    'site', 'layer', 'width', 'variant', 'sparsity_coefficient', 'target_l0',
    'seed',
)  # fmt: skip
# Fields of a member's record that are not those of `suite.Member`.
_PLACE = ('group', 'index', 'name')
# Errors of a record with missing fields, or fields of other types.
_INVALID = (LookupError, TypeError, AttributeError, ValueError, OverflowError)
_COUNTS = ('tokens_trained', 'rows_dropped', 'seconds', 'positions')


def read(
    run: folder_kinds.Folder, *, name: str = '', limit: int = 0
) -> list[Row]:
  """Returns a row per member and segment, in the order of members, then steps.

  The columns are run, model, member (its name), group, the fields of the
  member, step, the counts and the learning rate of the line, and all metrics of
  the member. Members that were added to the run follow. Undefined numbers are
  None. No device is used, so that a run can be read while it trains on the same
  machine.

  Args:
    run: The run directory, local or remote.
    name: The value of the column `run`; by default the directory's name.
    limit: The largest number of segments, which are evenly spaced, the last one
      included; 0 for all.

  Raises:
    MissingInputError: the folder holds no run, or the run has not logged yet.
    UserError: the folder is of another kind, such as a release.
    DataError: a file is damaged, or of a newer format.
  """
  rows = _read(run, name=name or run.name, limit=limit)
  for added in folder_kinds.added_runs(run):
    if (added / 'metrics.jsonl').exists():
      rows += _read(added, name=name or run.name, limit=limit)
  return rows


def _read(run: folder_kinds.Folder, *, name: str, limit: int) -> list[Row]:
  """Returns the rows of a run, without its added members."""
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
    origin = {'run': name, 'model': suite['model']}
  except _INVALID as error:
    raise errors.DataError(
        f'{suite_path}: a field is missing or of the wrong type ({error!r})'
    ) from error
  rows = []
  for member in members:
    for number, line in lines.items():
      try:
        rows.append({**origin, **member.fields, **member.metrics(line)})
      except _INVALID as error:
        raise errors.DataError(
            f'{path}: line {number}: a field is missing or of the wrong type'
            f' ({error!r})'
        ) from error
  return rows


class _Member:
  """Selects the metrics of one member from the lines of all members."""

  def __init__(self, record: Mapping[str, Any]):
    self._group, self._index = record['group'], record['index']
    self._peak = float(record['learning_rate'])
    member = suite_lib.Member(
        **{k: v for k, v in record.items() if k not in _PLACE}
    )
    if member.site not in lm.SITES:
      raise KeyError(member.site)
    self.fields = {
        # The computed name raises an error if a number is none.
        'member': record.get('name', suite_lib.member_name(member)),
        'group': self._group,
        **{name: getattr(member, name) for name in _MEMBER},
    }

  def metrics(self, line: Mapping[str, Any]) -> Row:
    """Returns the member's values in a line."""
    rate, sparsity = line['learning_rate'], line.get('sparsity_factor')
    if 'sparsity' in line:
      sparsity = line['sparsity']
      rate = None if rate is None else rate * self._peak
    metrics = line['groups'][self._group]
    row = {
        'step': int(line['step']),
        **{name: line.get(name) for name in _COUNTS},
        'learning_rate': rate,
        'sparsity_factor': sparsity,
        **{name: column[self._index] for name, column in metrics.items()},
    }
    for name, value in row.items():
      if not isinstance(value, int | float | None):
        raise TypeError(f'{name} is not a number')
      if isinstance(value, int) and abs(value) >= 2**63:
        raise OverflowError(f'{name} is larger than any number of a run')
    return row
