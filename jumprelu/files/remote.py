"""Paths in remote storage, and their refusal by flags for local paths."""

import os
import pathlib

from jumprelu import errors


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is an address such as gs://BUCKET/FOLDER."""
  return '://' in os.fspath(path)


def local(flag: str, path: str) -> pathlib.Path:
  """Returns the local path in a flag.

  Raises:
    UserError: The path is remote.
  """
  if is_remote(path):
    raise errors.UserError(
        f'--{flag}={path}: must be a local path; copy files from or to remote'
        ' storage with its own tool'
    )
  return pathlib.Path(path)
