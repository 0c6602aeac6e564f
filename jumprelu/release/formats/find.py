"""Finds the SAEs below a folder and reads them, whatever their formats are."""

import os
import pathlib

from jumprelu import errors
from jumprelu.files import folder_kinds
from jumprelu.release import layout, members
from jumprelu.release.formats import (
    gemma_scope,
    gemma_scope_2,
    ours,
    record,
    saelens,
)

# Asked in this order: a folder of ours looks like one of Gemma Scope's too.
FORMATS = {
    'jumprelu': ours,
    'saelens': saelens,
    'gemma_scope': gemma_scope,
    'gemma_scope_2': gemma_scope_2,
}


def find(root: str | os.PathLike) -> dict[str, record.Released]:
  """Returns every SAE of a release or below a folder, by its path.

  A release of ours lists its members in their order; elsewhere they come in
  the order of their paths, relative to `root`.

  Raises:
    MissingInputError: if there is none.
    DataError: if one is not sound; it is named.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise errors.MissingInputError(f'{root}: no such folder')
  if folder_kinds.is_run(root):
    folder_kinds.want_release(root)
  if (root / layout.SUITE).is_file():
    return {path: ours.read(root / path) for path in members.list_members(root)}
  found = {}
  for folder, folders, _ in os.walk(root):
    folders.sort(key=_by_number)
    reader = _format_of(pathlib.Path(folder))
    if reader:
      path = pathlib.Path(folder).relative_to(root).as_posix()
      found[path] = reader.read(pathlib.Path(folder))
  if not found:
    folder_kinds.want_release(root)
    raise errors.MissingInputError(
        f'{root}: no SAE below it; wanted: {layout.SUITE}, {layout.PARAMS},'
        ' params.safetensors, or cfg.json with sae_weights.safetensors'
    )
  return found


def _format_of(folder):
  readers = (f for f in FORMATS.values() if f.recognises(folder))
  return next(readers, None)


def _by_number(name):
  """Sorts layer_2 before layer_10."""
  digits = ''.join(c if c.isdigit() else ' ' for c in name).split()
  return [int(n) for n in digits], name
