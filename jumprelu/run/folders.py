"""Checks of flags that commands for pictures share."""

from collections.abc import Sequence
import pathlib

from jumprelu import errors
from jumprelu.files import folder_kinds, remote


def check_inputs(paths: Sequence[str], *, usage: str) -> None:
  """Checks that there are paths, all of them different.

  Raises:
    UserError: the message ends with `usage` if there are none.
  """
  if not paths:
    raise errors.UserError(f'nothing to draw: use {usage}')
  repeated = [path for i, path in enumerate(paths) if path in paths[:i]]
  if repeated:
    raise errors.UserError(f'{repeated[0]}: passed twice; pass it once')


def out_folder(out: str | None) -> pathlib.Path:
  """Returns the folder of --out, which may not exist yet.

  Raises:
    UserError: it is not set, remote, a file, or inside a release.
  """
  if not out:
    raise errors.UserError('--out is needed: a folder for the pictures')
  path = remote.local('out', out)
  if path.exists() and not path.is_dir():
    raise errors.UserError(f'--out={out}: not a directory; choose another')
  folder_kinds.refuse_inside_release('out', path)
  return path
