"""Files that must survive the loss of their computer."""

import os


def sync(path: str | os.PathLike[str]) -> None:
  """Waits until a local file or folder is on the disk.

  A file that is renamed before may be empty after a power failure, although its
  new name exists.
  """
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def sync_tree(folder: str | os.PathLike[str]) -> None:
  """Waits until all files in a local folder are on the disk."""
  for parent, _, names in os.walk(folder):
    for name in names:
      sync(os.path.join(parent, name))
    sync(parent)
