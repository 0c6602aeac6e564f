"""A fake bucket: gs:// paths in a local folder.

Only epath's backend for gs:// and tensorstore's driver are fake. The code above
them is real: orbax writes in place and commits with a file, as it does in
object storage, and every byte is written and read.
"""

import contextlib
import os
import pathlib

from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils
import pytest

_PREFIX = 'gs://'


class _Backend(type(backend.os_backend)):
  """A map from gs:// paths to a folder; parents are created on writing."""

  def __init__(self, root):
    self._root = root

  def local(self, path):
    """Returns the local path for a path in the bucket."""
    path = os.fspath(path)
    if not path.startswith(_PREFIX):
      return path
    return str(self._root / path.removeprefix(_PREFIX).strip('/'))

  def open(self, path, mode):
    if not mode.startswith('r'):
      pathlib.Path(self.local(path)).parent.mkdir(parents=True, exist_ok=True)
    # The result has no file number, because remote files cannot be locked.
    return _closing(super().open(self.local(path), mode))

  def exists(self, path):
    return super().exists(self.local(path))

  def isdir(self, path):
    return super().isdir(self.local(path))

  def listdir(self, path):
    return super().listdir(self.local(path))

  def glob(self, path):
    paths = super().glob(self.local(path))
    return [
        _PREFIX + str(pathlib.Path(p).relative_to(self._root)) for p in paths
    ]

  def makedirs(self, path, **kwargs):
    super().makedirs(self.local(path), **kwargs)

  def mkdir(self, path, **kwargs):
    super().mkdir(self.local(path), **kwargs)

  def rmtree(self, path):
    super().rmtree(self.local(path))

  def remove(self, path):
    super().remove(self.local(path))

  def rename(self, path, dst):
    super().rename(self.local(path), self.local(dst))

  def replace(self, path, dst):
    super().replace(self.local(path), self.local(dst))

  def copy(self, path, dst, overwrite):
    super().copy(self.local(path), self.local(dst), overwrite)

  def stat(self, path):
    return super().stat(self.local(path))


@contextlib.contextmanager
def _closing(file):
  with file:
    yield file


@contextlib.contextmanager
def mounted(root):
  """Maps gs://NAME to the folder `root`/NAME while the context is open."""
  fake = _Backend(root)

  def driver(path):
    return {'driver': 'file', 'path': fake.local(path)}

  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(gpath._PREFIX_TO_BACKEND, 'gs', fake)
    patch.setattr(gpath, '_GCS_BACKENDS', {fake})
    patch.setattr(gpath, '_is_tf_installed', lambda: False)
    patch.setattr(gcs_utils, 'get_kvstore_for_gcs', driver)
    patch.setattr(
        gcs_utils, 'is_hierarchical_namespace_enabled', lambda path: False
    )
    yield
