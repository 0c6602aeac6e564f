"""Recognises runs and releases, so that errors can say which one was passed.

A release holds a suite.json. A run holds a config.json, and a suite.json once
it has started to compute.
"""

from collections.abc import Callable
import json
import os
import pathlib
from typing import Any, NoReturn

from jumprelu import errors
from jumprelu.files import remote

_CONFIG, _SUITE, _ARRAYS = 'config.json', 'suite.json', 'params.npz'
# A run has at least one of these besides config.json. A language model's folder
# also has a config.json, but none of these.
_RUN_FILES = ('run.lock', 'env.json', 'STATUS.json', 'checkpoints', _SUITE)
# The folder with members that were added to a run, as runs by number.
ADDED = 'added'
# A folder of dictionary_learning has config.json, this file, and checkpoints.
_FOREIGN = 'ae.pt'
_MAX_BYTES = 64 * 2**20
# A local path, or a remote path with the same methods.
Folder = Any


def is_run(path: str | os.PathLike[str]) -> bool:
  """Returns whether a folder is the directory of a run."""
  folder = _folder(path)
  return (
      (folder / _CONFIG).exists()
      and any((folder / name).exists() for name in _RUN_FILES)
      and not (folder / _FOREIGN).exists()
  )


def added_runs(path: str | os.PathLike[str]) -> list[Folder]:
  """Returns the directories of a run's added members, sorted by number."""
  folder = _folder(path) / ADDED
  if not folder.is_dir():
    return []
  numbers = [p for p in folder.iterdir() if p.name.isdecimal() and is_run(p)]
  return sorted(numbers, key=lambda p: int(p.name))


def is_release(path: str | os.PathLike[str]) -> bool:
  """Returns whether a folder is a release of this package."""
  folder = _folder(path)
  suite = _read(folder / _SUITE)
  return {'members', 'files'} <= suite.keys() and not (
      folder / _CONFIG
  ).exists()


def want_release(path: str | os.PathLike[str]) -> None:
  """Refuses a folder that is recognised as something other than a release.

  Raises:
    UserError: It is a run, a part of a release, or the parent of a run or
      release.
  """
  folder = _folder(path)
  if is_run(folder):
    raise errors.UserError(
        f'{path}: a run, not a release; make one with: jumprelu release'
        f' --run={path} --out=DIR'
    )
  if (folder / _SUITE).exists() or not folder.is_dir():
    return
  if inside := _parent_release(folder):
    raise errors.UserError(
        f'{path}: a part of the release {inside}; pass that folder'
    )
  _refuse_parent(path, 'release')


def want_member(path: str | os.PathLike[str]) -> None:
  """Refuses a folder that is recognised as something other than a member.

  A member is one SAE's folder inside a release.

  Raises:
    UserError: It is a run, a release, or the parent of a run or release.
  """
  folder = _folder(path)
  if is_release(folder):
    first = _read(folder / _SUITE)['members'][0]['path']
    raise errors.UserError(
        f'{path}: a release; pass one of its members, such as {folder / first}'
    )
  if not (folder / _ARRAYS).exists() and not _parent_release(folder):
    want_release(path)


def want_run(path: str | os.PathLike[str]) -> None:
  """Refuses a folder that is recognised as something other than a run.

  Raises:
    UserError: It is a release, a part of a release, or the parent of a run or
      release.
  """
  folder = _folder(path)
  if is_run(folder) or not folder.is_dir():
    return
  if inside := _parent_release(folder, itself=True):
    what = (
        'a release' if inside == folder else f'a part of the release {inside}'
    )
    raise errors.UserError(
        f'{path}: {what}, not a run; pass the directory that `jumprelu train`'
        ' wrote'
    )
  _refuse_parent(path, 'run')


def refuse_inside_release(flag: str, path: str | os.PathLike[str]) -> None:
  """Refuses a local output path that is a release or inside one.

  Remote paths are not checked.

  Raises:
    UserError: The message names the release.
  """
  if remote.is_remote(path):
    return
  folder = _folder(path).expanduser().absolute()
  if inside := _parent_release(folder, itself=True):
    raise errors.UserError(
        f'--{flag}={path}: {inside} is a release, which holds only what its'
        ' suite.json lists; choose a folder outside it'
    )


def _folder(path: str | os.PathLike[str]) -> Folder:
  return path if hasattr(path, 'exists') else pathlib.Path(path)


def _parent_release(folder: Folder, *, itself: bool = False) -> Folder | None:
  """Returns the nearest release among a folder's parents, or None.

  With `itself`, the folder may be that release. The parents of a remote folder
  are not checked.
  """
  if remote.is_remote(folder):
    return folder if itself and is_release(folder) else None
  parents = folder.absolute().parents
  if itself:
    parents = (folder, *parents)
  return next(filter(is_release, parents), None)


def _refuse_parent(path: str | os.PathLike[str], wanted: str) -> None:
  """Raises UserError with the child's path if a child is a run or release.

  If there are both, the message names one of the wanted kind.
  """
  kinds: dict[str, Callable[[Any], bool]] = {
      'release': is_release,
      'run': is_run,
  }
  children = sorted(p for p in _folder(path).iterdir() if p.is_dir())
  for kind in sorted(kinds, key=lambda name: name != wanted):
    for child in children:
      if kinds[kind](child):
        _raise_with_child(path, wanted, child, kind)


def _raise_with_child(path, wanted: str, child: Folder, kind: str) -> NoReturn:
  if kind == wanted:
    raise errors.UserError(f'{path}: no {wanted}; there is one in {child}')
  cure = ''
  if wanted == 'release':
    cure = f'; make one with: jumprelu release --run={child} --out=DIR'
  raise errors.UserError(
      f'{path}: no {wanted}; there is a {kind} in {child}{cure}'
  )


def _read(path: Folder) -> dict[str, Any]:
  """Returns the object in a JSON file, or {} if the file has none."""
  try:
    if not path.exists():
      return {}
    with path.open('rb') as file:
      value = json.loads(file.read(_MAX_BYTES))
  except (OSError, ValueError, RecursionError):
    return {}
  return value if isinstance(value, dict) else {}
