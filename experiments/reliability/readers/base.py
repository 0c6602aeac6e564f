"""A reader of files: its valid inputs, its files and the damage that it finds."""

from collections.abc import Callable, Mapping
import dataclasses
import enum
import hashlib
import pathlib
import random
import shutil
from typing import Any

import numpy as np

Mutation = Callable[[bytes, random.Random], bytes]


class Protection(enum.Enum):
  """The damage that a reader must find."""

  # None: the format has no checksum, so that changed values may be accepted.
  NONE = 'none'
  # Changed bytes of a file must be refused or have no effect.
  VALUES = 'values'
  # Any changed byte must be refused, even if an archive was written anew.
  BYTES = 'bytes'


@dataclasses.dataclass(frozen=True)
class Reader:
  """One reader and its inputs.

  Attributes:
    name: The name, that of the file of its results.
    make: Writes valid inputs into an empty folder.
    read: Reads the folder; returns the values that it holds.
    mutations: Pattern of a file's path -> changes of its bytes. Files that match
      no pattern are never changed.
    anew: As `mutations`, for changes after which an archive is valid again, so
      that no checksum can find them.
    protection: The damage that `read` must find in files of `mutations`.
    unprotected: Patterns of files without a digest.
    writes: Whether `read` changes files of the folder.
    is_checked: Whether callers look for the file before `read`, so that it is
      never replaced by a folder or a link.
  """

  name: str
  make: Callable[[pathlib.Path], None]
  read: Callable[[pathlib.Path], Any]
  mutations: Mapping[str, tuple[Mutation, ...]]
  anew: Mapping[str, tuple[Mutation, ...]] = dataclasses.field(
      default_factory=dict
  )
  protection: Protection = Protection.NONE
  unprotected: tuple[str, ...] = ()
  writes: bool = False
  is_checked: bool = False


class Wrong(Exception):
  """Values that no reader may return, such as non-finite parameters."""


def fingerprint(value: Any) -> str:
  """Returns a digest of nested values, arrays included."""
  digest = hashlib.sha256()
  _add(digest, value)
  return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
  if isinstance(value, Mapping):
    for key in value:
      digest.update(f'{key!r}:'.encode('utf-8', 'surrogatepass'))
      _add(digest, value[key])
  elif isinstance(value, list | tuple):
    digest.update(f'[{len(value)}'.encode())
    for part in value:
      _add(digest, part)
  elif isinstance(value, np.ndarray):
    digest.update(f'{value.dtype}{value.shape}'.encode())
    digest.update(np.ascontiguousarray(value).tobytes())
  elif dataclasses.is_dataclass(value) and not isinstance(value, type):
    for field in dataclasses.fields(value):
      _add(digest, getattr(value, field.name))
  else:
    digest.update(repr(value).encode('utf-8', 'surrogatepass'))


def check_finite(params: Mapping[str, Any], where: str) -> None:
  """Raises Wrong if an array has non-finite values."""
  for name, value in params.items():
    if not np.isfinite(np.asarray(value, np.float64)).all():
      raise Wrong(f'{where}: {name} has non-finite values')


def remove(folder: pathlib.Path) -> None:
  """Removes a folder with all files in it."""
  shutil.rmtree(folder)
