"""The digests of a text's files, which are not read anew at each start.

A record in the cache folder has size, time of change and SHA-256 of each file.
A file is read again if its size or its times differ from the record, or if it
was changed so shortly before the record that its times may not show a later
change.
"""

from collections.abc import Callable, Sequence
import hashlib
import os
import pathlib
import time
from typing import Any, NamedTuple

from jumprelu import errors
from jumprelu.files import digests as digests_lib
from jumprelu.files import json_files

# Records of files that are read faster than this are not kept.
_SECONDS = 1.0
# The seconds in which file systems may give two changes the same time.
_GRAIN = 2.0


class Digest(NamedTuple):
  """The bytes of a file, and their SHA-256."""

  size: int
  sha256: str


def digests(
    paths: Sequence[pathlib.Path],
    *,
    cache: pathlib.Path,
    check: Callable[[pathlib.Path], None],
) -> list[Digest]:
  """Returns the digest of each file.

  Args:
    paths: The files.
    cache: The folder of the records, which may not exist or not be writable.
    check: Called with each file that is read; may raise an error.
  """
  start = time.time()
  where = _place(paths, cache)
  known = _read(where)
  result: list[Digest] = []
  record: dict[str, Any] = {}
  for path in paths:
    stamp = _stamp(path)
    entry = known.get(str(path))
    if not isinstance(entry, list) or entry[:-1] != stamp:
      check(path)
      entry = [*stamp, digests_lib.sha256_of(path)]
    result.append(Digest(entry[0], entry[-1]))
    if max(entry[1:3]) < 1e9 * (start - _GRAIN):
      record[str(path)] = entry
  if record != known and time.time() - start >= _SECONDS:
    _write(where, record)
  return result


def _stamp(path: pathlib.Path) -> list[int]:
  """Returns size, times of change of content and of metadata, and number."""
  status = path.stat()
  return [
      status.st_size,
      status.st_mtime_ns,
      status.st_ctime_ns,
      status.st_ino,
      status.st_dev,
  ]


def _place(paths: Sequence[pathlib.Path], cache: pathlib.Path) -> pathlib.Path:
  """Returns the file of the record of these paths."""
  names = '\0'.join(map(str, paths)).encode('utf-8', 'surrogateescape')
  return cache / 'file_digests' / f'{hashlib.sha256(names).hexdigest()}.json'


def _read(where: pathlib.Path) -> dict[str, Any]:
  """Returns a record; {} if it is missing or damaged."""
  try:
    return json_files.read_json(where, missing_ok=True, sealed=True)
  except (errors.DataError, OSError):
    return {}


def _write(where: pathlib.Path, record: dict[str, Any]) -> None:
  """Writes a record, if the folder is writable."""
  try:
    os.makedirs(where.parent, exist_ok=True)
    json_files.write_json(where, record, indent=0, seal=True)
  except OSError:
    pass
