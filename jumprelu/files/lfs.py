"""Pointers of Git LFS, which a clone without LFS has in place of large files."""

import os
import pathlib

from jumprelu import errors

_START = b'version https://git-lfs.github.com/spec/'


def is_pointer(path: str | os.PathLike[str]) -> bool:
  """Returns whether a file is a pointer of Git LFS."""
  with pathlib.Path(path).open('rb') as file:
    return file.read(len(_START)) == _START


def refuse_pointer(path: str | os.PathLike[str]) -> None:
  """Raises DataError if a file is a pointer of Git LFS."""
  if is_pointer(path):
    raise errors.DataError(
        f'{path}: a pointer of Git LFS, not the file itself; run git lfs pull in'
        ' its folder'
    )
