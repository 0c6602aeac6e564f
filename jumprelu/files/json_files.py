"""JSON files, written atomically, with null for non-finite numbers.

Paths are local or epath's, so that the same functions serve remote storage.
Very large files are not parsed, because a file may come from a stranger.
"""

from collections.abc import Mapping
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from jumprelu import errors

_MAX_BYTES = 64 * 2**20


def read_json(
    path: str | os.PathLike[str], *, cure: str = '', missing_ok: bool = False
) -> dict[str, Any]:
  """Returns the JSON object in a file.

  Args:
    path: The file.
    cure: The user's cure for a damaged file; errors end with it.
    missing_ok: Whether to return {} if the file does not exist.

  Raises:
    MissingInputError: The file does not exist.
    DataError: The file is too large, or does not hold a JSON object.
  """
  path, cure = _as_path(path), cure and f'; {cure}'
  if not path.exists() and missing_ok:
    return {}
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file{cure}')
  try:
    with path.open('rb') as file:
      text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
      raise errors.DataError(f'{path}: too large for a description{cure}')
    value = json.loads(text)
  except (ValueError, RecursionError, OSError) as error:
    raise errors.DataError(f'{path}: not JSON ({error}){cure}') from error
  if not isinstance(value, dict):
    raise errors.DataError(f'{path}: not a JSON object{cure}')
  return value


def write_json(
    path: str | os.PathLike[str],
    value: Mapping[str, Any],
    *,
    indent: int = 2,
    sort_keys: bool = False,
) -> None:
  """Writes a JSON object; after a crash the file is the old or the new one."""
  text = json.dumps(
      to_plain(value), indent=indent, sort_keys=sort_keys, allow_nan=False
  )
  write_text(path, text + '\n')


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes text; after a crash the file is the old or the new one."""
  path = _as_path(path)
  partial = path.with_name(path.name + '.partial')
  with partial.open('w', encoding='utf-8') as file:
    file.write(text)
    _sync(file)
  partial.replace(path)


def append_line(
    path: str | os.PathLike[str],
    value: Mapping[str, Any],
    *,
    sort_keys: bool = False,
    durable: bool = False,
) -> None:
  """Appends a line of JSON; a durable one survives a power failure."""
  with _as_path(path).open('a', encoding='utf-8') as file:
    line = json.dumps(to_plain(value), sort_keys=sort_keys, allow_nan=False)
    file.write(line + '\n')
    if durable:
      _sync(file)


def read_lines(
    path: str | os.PathLike[str], *, skip_unfinished: bool = False
) -> list[dict[str, Any]]:
  """Returns the objects of a file with one on each line.

  Args:
    path: The file.
    skip_unfinished: Leaves out a last line without a newline, because its
      writer was killed.

  Raises:
    DataError: A line is not JSON.
  """
  path = _as_path(path)
  lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
  if skip_unfinished:
    lines = [line for line in lines if line.endswith('\n')]
  values = []
  for number, line in enumerate(lines, 1):
    try:
      values.append(json.loads(line))
    except (ValueError, RecursionError) as error:
      raise errors.DataError(f'{path}: line {number}: {error}') from error
  return values


def to_plain(value: Any) -> Any:
  """Returns `value` as JSON types; a non-finite number becomes None."""
  if isinstance(value, Mapping):
    return {str(k): to_plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [to_plain(v) for v in value]
  if hasattr(value, 'item') and not np.ndim(value):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _as_path(path: Any) -> Any:
  """Returns strings as local paths, and paths of any file system unchanged."""
  return pathlib.Path(path) if isinstance(path, str) else path


def _sync(file: Any) -> None:
  file.flush()
  if hasattr(file, 'fileno'):  # Otherwise remote: closing it uploads it.
    os.fsync(file.fileno())
