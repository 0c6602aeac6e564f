"""JSON files with one object, and files with one JSON object per line.

Non-finite numbers are written as null. Whole files are written atomically;
lines are appended in place. Paths are local paths or epath's, which include
remote storage. An object may be sealed: it then has one more field, the SHA-256
of its other fields, so that a flipped bit is an error when it is read.
"""

from collections.abc import Mapping
import hashlib
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from jumprelu import errors
from jumprelu.files import remote

# Larger files are not parsed, because files may come from untrusted sources.
_MAX_BYTES = 64 * 2**20
_SEAL = 'sha256_of_fields'


def read_json(
    path: str | os.PathLike[str],
    *,
    cure: str = '',
    missing_ok: bool = False,
    sealed: bool = False,
) -> dict[str, Any]:
  """Returns the JSON object in a file, without its seal, which is checked.

  Args:
    path: The file.
    cure: Advice for the user if the file is missing or damaged, with which
      error messages end.
    missing_ok: Whether to return {} if the file does not exist.
    sealed: Whether an object without a seal is an error, too.

  Raises:
    MissingInputError: The file does not exist.
    DataError: The file cannot be read, is too large, does not hold a JSON
      object, or its seal does not match.
  """
  path, cure = _as_path(path), cure and f'; {cure}'
  if not path.exists() and missing_ok:
    return {}
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file{cure}')
  try:
    with path.open('rb') as file:
      text = file.read(_MAX_BYTES + 1)
  except OSError as error:
    why = error.strerror or error
    raise errors.DataError(f'{path}: cannot be read ({why}){cure}') from error
  if len(text) > _MAX_BYTES:
    raise errors.DataError(
        f'{path}: larger than {_MAX_BYTES // 2**20} MiB, too large for a JSON'
        f' file{cure}'
    )
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise errors.DataError(f'{path}: not JSON ({error}){cure}') from error
  if not isinstance(value, dict):
    raise errors.DataError(f'{path}: not a JSON object{cure}')
  seal = value.pop(_SEAL, None)
  if (seal is not None or sealed) and seal != _seal_of(value):
    raise errors.DataError(
        f'{path}: damaged or edited, because its fields do not match its'
        f' {_SEAL}{cure}'
    )
  return value


def _seal_of(value: Mapping[str, Any]) -> str:
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def write_json(
    path: str | os.PathLike[str],
    value: Mapping[str, Any],
    *,
    indent: int = 2,
    sort_keys: bool = False,
    seal: bool = False,
) -> None:
  """Writes a JSON object; after a crash the file is the old or the new one.

  Args:
    path: The file, which is replaced if it exists.
    value: The object.
    indent: The number of spaces per level.
    sort_keys: Whether to write the keys in sorted order.
    seal: Whether to add the SHA-256 of the fields.
  """
  plain = to_plain(value)
  if seal:
    # Read back, because the fields that a reader gets are sealed.
    plain |= {_SEAL: _seal_of(json.loads(json.dumps(plain)))}
  text = json.dumps(plain, indent=indent, sort_keys=sort_keys, allow_nan=False)
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
  """Appends an object as a line of JSON.

  Args:
    path: The file, which is created if it does not exist.
    value: The object.
    sort_keys: Whether to write the keys in sorted order.
    durable: Whether to wait until the line is on the disk, so that it survives
      a power failure.
  """
  with _as_path(path).open('a', encoding='utf-8') as file:
    line = json.dumps(to_plain(value), sort_keys=sort_keys, allow_nan=False)
    file.write(line + '\n')
    if durable:
      _sync(file)


def read_lines(
    path: str | os.PathLike[str], *, skip_unfinished: bool = False
) -> list[dict[str, Any]]:
  """Returns the objects of a file with one JSON object per line.

  Args:
    path: The file.
    skip_unfinished: Whether to leave out a last line without a newline, which a
      killed writer has left.

  Raises:
    DataError: The file is not text, or a line is not a JSON object.
  """
  return list(read_some_lines(path, skip_unfinished=skip_unfinished).values())


def read_some_lines(
    path: str | os.PathLike[str],
    *,
    limit: int = 0,
    skip_unfinished: bool = False,
) -> dict[int, dict[str, Any]]:
  """Returns {line number: object} of evenly spaced lines of a file.

  Args:
    path: The file, with one JSON object per line.
    limit: The largest number of lines, at least 2. The first and the last line
      are among them. 0 for all lines.
    skip_unfinished: Whether to leave out a last line without a newline.

  Raises:
    DataError: The file is not text, or one of the lines is not a JSON object.
  """
  path = _as_path(path)
  try:
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
  except UnicodeDecodeError as error:
    raise errors.DataError(f'{path}: not text ({error})') from error
  if skip_unfinished:
    lines = [line for line in lines if line.endswith('\n')]
  indices = range(len(lines))
  if limit and len(lines) > limit:
    indices = np.linspace(0, len(lines) - 1, limit).round().astype(int).tolist()
  values = {}
  for index in indices:
    try:
      value = json.loads(lines[index])
    except (ValueError, RecursionError) as error:
      raise errors.DataError(f'{path}: line {index + 1}: {error}') from error
    if not isinstance(value, dict):
      raise errors.DataError(f'{path}: line {index + 1}: not a JSON object')
    values[index + 1] = value
  return values


def to_plain(value: Any) -> Any:
  """Returns `value` with plain dicts, lists and Python scalars.

  Keys become strings, and non-finite numbers become None. Values of other types
  are unchanged.
  """
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
  """Returns a string as a local path, and a path object unchanged."""
  return pathlib.Path(path) if isinstance(path, str) else path


def _sync(file: Any) -> None:
  file.flush()
  descriptor = remote.descriptor(file)
  if descriptor is not None:  # A remote file is uploaded when it is closed.
    os.fsync(descriptor)
