"""Which paths are addresses in remote storage, and which flags refuse them."""

import os
import pathlib

from jumprelu import errors


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether a path is an address such as gs://BUCKET/FOLDER."""
  return '://' in os.fspath(path)


def local(flag: str, path: str) -> pathlib.Path:
  """Returns the path that a flag names.

  Raises:
    UserError: it is no local one.
  """
  if is_remote(path):
    raise errors.UserError(
        f'--{flag}={path}: must be a local path; copy files from or to remote'
        ' storage with its own tool'
    )
  return pathlib.Path(path)
