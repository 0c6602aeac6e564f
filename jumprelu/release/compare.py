"""Results of several releases and evaluations as one table."""

from collections.abc import Mapping, Sequence
import math
import pathlib
from typing import Any

from jumprelu import errors
from jumprelu.files import folder_kinds, json_files
from jumprelu.plots import plot_style
from jumprelu.release import layout

Row = dict[str, Any]

_NUMBERS = (
    'l0', 'fvu', 'pca_fvu', 'delta_loss', 'delta_loss_stderr', 'target_l0',
    'sparsity_coefficient', 'tokens_evaluated', 'loss_clean', 'released_l0',
)  # fmt: skip
# Larger integers cannot be compared with other numbers.
_LARGEST = 2**63
_TYPES = {'model': str, 'variant': str, 'layer': int, 'width': int}


def read(source: pathlib.Path, *, name: str = '') -> list[Row]:
  """Returns the rows of results of a release, or of a file of results.

  Args:
    source: A release, or a .jsonl file that `jumprelu evaluate` wrote.
    name: The value of the column `run`, which is added as the first column.

  Raises:
    MissingInputError: the path does not exist.
    UserError: the path is of another kind, such as a run.
    DataError: the file is damaged or does not hold rows of results.
  """
  path = source
  if source.is_dir():
    folder_kinds.want_release(source)
    path = source / layout.ALL_RESULTS
  elif source.suffix != '.jsonl' and source.exists():
    raise errors.UserError(
        f'{source}: not a release or a file of results; pass the .jsonl file'
        ' that `jumprelu evaluate` wrote'
    )
  if not path.is_file():
    raise errors.MissingInputError(
        f'{path}: no such file; pass a release or a file of `jumprelu evaluate`'
    )
  rows = json_files.read_lines(path)
  if not rows:
    raise errors.DataError(f'{path}: empty; run `jumprelu evaluate` again')
  for number, row in enumerate(rows, 1):
    if fault := _fault(row):
      raise errors.DataError(
          f'{path}: line {number}: {fault}, so it is no row of results; pass a'
          ' file that `jumprelu evaluate` wrote to its --out'
      )
  return [{'run': name, **row} for row in rows]


def has_one_text(rows: Sequence[Mapping[str, Any]]) -> bool:
  """Returns whether all results of a model were measured on the same text.

  A text is recognised by the number of its tokens and the model's own loss.
  """
  texts: dict[Any, list[tuple[Any, float]]] = {}
  for row in rows:
    text = row.get('tokens_evaluated'), row.get('loss_clean') or 0.0
    texts.setdefault((row['model'], row.get('lm_dtype')), []).append(text)
  return all(
      tokens == measured[0][0]
      and math.isclose(loss, measured[0][1], rel_tol=1e-4)
      for measured in texts.values()
      for tokens, loss in measured
  )


def _fault(row: Row) -> str:
  """Returns the first fault of a row; empty if it can be drawn."""
  for name, kind in _TYPES.items():
    if not isinstance(row.get(name), kind):
      return f'{name} is missing or of the wrong type'
  if row.get('site') not in list(plot_style.SITES):
    return f'site is none of {", ".join(plot_style.SITES)}'
  if 'l0' not in row:
    return 'l0 is missing'
  for name in _NUMBERS:
    value = row.get(name)
    if not isinstance(value, int | float | None):
      return f'{name} is not a number'
    if isinstance(value, int) and abs(value) > _LARGEST:
      return f'{name} is larger than any number of results'
  if not isinstance(row.get('lm_dtype'), str | None):
    return 'lm_dtype is not a text'
  return ''
