"""The free space of a disk, which is compared before the first write."""

import os
import pathlib
import shutil
from typing import Any

from jumprelu import errors
from jumprelu.files import remote


def require(
    folder: Any, needed: int | float, *, what: str, cure: str = ''
) -> None:
  """Raises FullDiskError if a folder has too little space.

  Remote storage, whose free space is unknown, is not checked.

  Args:
    folder: The folder, which need not exist yet.
    needed: The bytes that will be written, at least.
    what: The things that are written, for the message.
    cure: Advice besides making room.
  """
  if remote.is_remote(folder):
    return
  path = pathlib.Path(os.path.abspath(folder))
  while not path.exists() and path != path.parent:
    path = path.parent
  free = shutil.disk_usage(path).free
  if needed > free:
    raise errors.FullDiskError(
        f'{folder}: {what} needs {int(needed):,} bytes, but {free:,} are free;'
        f' make room there{cure and f", {cure},"} and run the same command again'
    )
