"""Remote storage: recognising its paths and its open files."""

import io
import os
import pathlib
from typing import Any

from jumprelu import errors


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is an address such as gs://BUCKET/FOLDER."""
  return '://' in os.fspath(path)


def local(flag: str, path: str) -> pathlib.Path:
  """Returns the path of a flag that does not accept remote storage.

  A ~ at its start is expanded, which shells leave to the program in --flag=~/x.

  Args:
    flag: The name of the flag.
    path: Its value.

  Raises:
    UserError: The path is remote, or has a ~ of an unknown user.
  """
  if is_remote(path):
    raise errors.UserError(
        f'--{flag}={path}: must be a local path; copy files from or to remote'
        ' storage with its own tool'
    )
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError as error:
    raise errors.UserError(f'--{flag}={path}: {error}') from None


def descriptor(file: Any) -> int | None:
  """Returns an open file's descriptor, or None for a file in remote storage."""
  # Remote files may lack `fileno`, or inherit one that raises an error.
  try:
    return file.fileno()
  except (AttributeError, io.UnsupportedOperation):
    return None
