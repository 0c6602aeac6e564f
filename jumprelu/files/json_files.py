"""JSON objects in files that are not trusted."""

import json
import os
import pathlib

from jumprelu import errors

_MAX_JSON_BYTES = 64 * 2**20


def read_json(path: str | os.PathLike) -> dict:
  """Read one JSON object."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file')
  if path.stat().st_size > _MAX_JSON_BYTES:
    raise errors.DataError(f'{path}: too large for a description')
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as e:
    raise errors.DataError(f'{path}: not JSON ({e})') from e
  if not isinstance(value, dict):
    raise errors.DataError(f'{path}: not a JSON object')
  return value
