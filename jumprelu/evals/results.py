"""Results, one row per member: JSON lines, Parquet and a text table."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

from jumprelu import extras
from jumprelu.evals import table as table_lib
from jumprelu.files import json_files

Row = dict[str, Any]

# {column heading: field of a row}.
COLUMNS = {
    'run': 'run',
    'site': 'site',
    'layer': 'layer',
    'width': 'width',
    'variant': 'variant',
    'coefficient': 'sparsity_coefficient',
    'target L0': 'target_l0',
    'released L0': 'released_l0',
    'L0': 'l0',
    'FVU': 'fvu',
    'PCA FVU': 'pca_fvu',
    'delta loss': 'delta_loss',
    '+-': 'delta_loss_stderr',
    'recovered': 'loss_recovered',
    'by mean': 'loss_recovered_mean',
    'gamma': 'gamma',
    'dead': 'dead_share',
    'dense': 'dense_share',
    'skipped steps': 'steps_skipped',
    'unfinished': 'unfinished',
}
# Fields whose columns are omitted if they are 0 in all rows.
_HIDDEN_IF_ZERO = ('steps_skipped',)
# Columns that are left out if all rows have the same value.
_SHARED = ('layer', 'width', 'variant')

# A target L0 is missed if the L0 differs from it by more than this share.
_MISSED_BY = 0.2
# A released L0 is marked if it differs from the L0 by more than this factor.
_OFF_BY = 2


def make_row(fields: Mapping[str, Any]) -> Row:
  """Returns the fields as plain Python values, non-finite numbers as None.

  JSON has no NaN, and None shows that a number is undefined.
  """
  return json_files.to_plain(fields)


def write(rows: Sequence[Row], path: str | os.PathLike) -> None:
  """Writes the rows as JSON lines to `path` and as Parquet next to it.

  Each file is written atomically.
  """
  with extras.imports():
    import pyarrow
    from pyarrow import parquet

  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(path.name + '.tmp')
  draft.write_text(
      ''.join(json.dumps(row, allow_nan=False) + '\n' for row in rows), 'utf-8'
  )
  draft.replace(path)
  names = dict.fromkeys(name for row in rows for name in row)
  table = pyarrow.table(
      {name: [row.get(name) for row in rows] for name in names}
  )
  parquet.write_table(table, draft)
  draft.replace(path.with_suffix('.parquet'))


def read(path: str | os.PathLike) -> list[Row]:
  """Reads the JSON lines that `write` wrote."""
  return json_files.read_lines(path)


def table(rows: Sequence[Row]) -> str:
  """Returns the rows as an aligned table, without columns that are empty.

  If layer, width or variant are the same in several rows, they are in a line
  above the table. A target L0 that the L0 misses is marked, and so is the L0 in
  the name of a released SAE if it is far from the measured one. Lines below the
  table explain marks and high dense shares.
  """
  columns = {
      heading: [_cell(row, field) for row in rows]
      for heading, field in COLUMNS.items()
  }
  columns = {
      heading: cells
      for heading, cells in columns.items()
      if any(cell not in (None, '') for cell in cells)
      and (COLUMNS[heading] not in _HIDDEN_IF_ZERO or any(cells))
  }
  shared = [
      f'{heading} {columns.pop(heading)[0]}'
      for heading in _SHARED
      if len(rows) > 1 and len(set(columns.get(heading, ()))) == 1
  ]
  text = table_lib.format_table(
      list(columns), [list(row) for row in zip(*columns.values(), strict=True)]
  )
  if shared:
    text = f'{", ".join(shared)}\n{text}'
  if any(map(misses_target, rows)):
    text += f'\nmissed: the L0 is more than {_MISSED_BY:.0%} off the target L0'
  if any(map(differs_from_released, rows)):
    text += (
        f'\noff: the L0 in the name differs by more than {_OFF_BY} times from the'
        ' measured one: check --model, --layer, --site and --data'
    )
  if 'dense' in columns and any(map(_is_narrow, rows)):
    text += (
        '\ndense: high where L0 is more than a tenth of the width, because the'
        ' average latent is then active on more than 10 % of tokens'
    )
  return text


def _is_narrow(row: Row) -> bool:
  """Returns whether the average latent counts as dense."""
  l0, width = row.get('l0'), row.get('width')
  return bool(l0 and width and l0 > 0.1 * width)


def misses_target(row: Mapping[str, Any]) -> bool:
  """Returns whether a row's L0 is more than 20 % off its target L0, if any."""
  target, l0 = row.get('target_l0'), row.get('l0')
  if not target or l0 is None:
    return False
  return abs(l0 - target) > _MISSED_BY * target


def differs_from_released(row: Mapping[str, Any]) -> bool:
  """Returns whether the L0 is more than twice or less than half the named."""
  named, l0 = row.get('released_l0'), row.get('l0')
  if not named or l0 is None:
    return False
  return not named / _OFF_BY <= l0 <= named * _OFF_BY


def _cell(row: Row, field: str) -> Any:
  value, target = row.get(field), row.get('target_l0')
  if field == 'target_l0':
    if misses_target(row):
      return f'{table_lib.format_number(value)} missed'
    return value or None
  if field == 'released_l0' and differs_from_released(row):
    return f'{table_lib.format_number(value)} off'
  # With a target, the usual coefficient of 1 has no relation to the sparsity.
  if field == 'sparsity_coefficient' and target and value == 1:
    return None
  return value
