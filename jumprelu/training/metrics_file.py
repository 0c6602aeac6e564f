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
                  segment; dead_share and skipped at its end

Site, coefficient, target L0 and seed of each name are in suite.json.

Lines of versions before `members` have the field `sparsity` in place of
`sparsity_factor`, and their `learning_rate` is a factor too: the part of
`optim.learning_rate` that the schedule has reached. The functions below convert
them, so that callers see only the fields above. A run that a newer version has
resumed has lines of both kinds.
"""

from collections.abc import Iterator
import os
from typing import Any

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.training import run_dir, suite


def read(out: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the lines of a run's metrics.jsonl, old ones converted.

  Raises:
    MissingInputError: the directory holds no run, or the run has no metrics.
    UserError, DataError: the directory is a release, or a file is damaged.
  """
  directory = run_dir.RunDir(out)
  config = directory.read_config()
  path = directory.path / 'metrics.jsonl'
  if not path.exists():
    raise errors.MissingInputError(
        f'{path}: no metrics yet; let `jumprelu train` run longer'
    )
  members: dict[str, list[str]] = {}
  for name, group in _names(directory.read_suite()):
    members.setdefault(group, []).append(name)
  return [
      _converted(line, config.optim.learning_rate, members)
      for line in json_files.read_lines(path, skip_unfinished=True)
  ]


def by_member(out: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns a row for each segment and member, for a table or a plot.

  A row has `step`, `member`, `group`, the metrics of the member, and the other
  numbers of its line. The errors are those of `read`.
  """
  rows = []
  for line in read(out):
    shared = {
        name: value
        for name, value in line.items()
        if name not in ('members', 'groups')
    }
    for group, metrics in line['groups'].items():
      for index, member in enumerate(line['members'][group]):
        values = {name: column[index] for name, column in metrics.items()}
        rows.append({**shared, 'group': group, 'member': member, **values})
  return rows


def _names(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields name and group of each member of suite.json, in their order."""
  for member in record.get('members', ()):
    fields = {
        name: value
        for name, value in member.items()
        if name not in ('group', 'index', 'name')
    }
    yield suite.member_name(suite.Member(**fields)), member['group']


def _converted(
    line: dict[str, Any], learning_rate: float, members: dict[str, list[str]]
) -> dict[str, Any]:
  """Returns a line in the newest format."""
  if 'sparsity' not in line:
    return line
  line = dict(line)
  line['sparsity_factor'] = line.pop('sparsity')
  line['learning_rate'] *= learning_rate
  return line | {'members': members}
