"""Finds and reads the SAEs below a folder, in all known formats."""

from collections.abc import Mapping, Sequence
import os
import pathlib

from jumprelu import errors
from jumprelu.files import folder_kinds
from jumprelu.release import layout, members
from jumprelu.release.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    ours,
    record,
    saelens,
)

# In order of precedence, because a member of our own releases is recognised as
# gemma_scope too.
FORMATS = {
    'jumprelu': ours,
    'saelens': saelens,
    'gemma_scope': gemma_scope,
    'gemma_scope_2': gemma_scope_2,
    'dictionary_learning': dictionary_learning,
}
# The files that hold the arrays of one SAE.
_ARRAYS = (
    layout.PARAMS,
    'params.safetensors',
    'sae_weights.safetensors',
    dictionary_learning.PARAMS,
)


def find(root: str | os.PathLike) -> dict[str, record.Released]:
  """Returns all SAEs below a folder, by path relative to `root`.

  Members of our own releases are in the order of suite.json. Other SAEs are in
  the order of their paths, with layer_2 before layer_10.

  Args:
    root: The folder, or the file with the arrays of a single SAE.

  Raises:
    MissingInputError: the folder does not exist or holds no SAE.
    DataError: an SAE is damaged; the message names it.
    UserError: the folder is of another kind, such as a run, or an SAE is of a
      kind that is not supported.
  """
  root = pathlib.Path(root).expanduser()
  if root.is_file():
    if root.name not in _ARRAYS:
      raise errors.UserError(
          f'{root}: neither a folder nor a file with the arrays of an SAE'
          f' ({", ".join(_ARRAYS)})'
      )
    root = root.parent
  if not root.is_dir():
    raise errors.MissingInputError(f'{root}: no such folder')
  if folder_kinds.is_run(root):
    folder_kinds.want_release(root)
  if (root / layout.SUITE).is_file():
    return {path: ours.read(root / path) for path in members.list_members(root)}
  released = {}
  seen = set()
  for folder, folders, _ in os.walk(root, followlinks=True, onerror=_refuse):
    if os.path.realpath(folder) in seen:  # A link to a folder above or beside.
      folders.clear()
      continue
    seen.add(os.path.realpath(folder))
    folders.sort(key=_by_number)
    reader = _format_of(pathlib.Path(folder))
    path = pathlib.Path(folder).relative_to(root).as_posix()
    if reader:
      released[path] = reader.read(pathlib.Path(folder))
    elif circuit_tracer.recognises(pathlib.Path(folder)):
      # The only format with several SAEs in a folder.
      for name, sae in circuit_tracer.read_set(pathlib.Path(folder)).items():
        released[name if path == '.' else f'{path}/{name}'] = sae
  if not released:
    folder_kinds.want_release(root)
    raise errors.MissingInputError(
        f'{root}: no SAE in it or below it; wanted: {layout.SUITE},'
        f' {layout.PARAMS}, params.safetensors, ae.pt, cfg.json with'
        ' sae_weights.safetensors, or config.yaml with layer_0.safetensors'
    )
  return released


def select(
    released: Mapping[str, record.Released], texts: Sequence[str]
) -> dict[str, record.Released]:
  """Returns the SAEs whose path contains one of the texts; all if none.

  Raises:
    UserError: a text is in no path.
  """
  for text in texts:
    if not any(text in path for path in released):
      raise errors.UserError(
          f'--members={text}: no member has it in its path; members:'
          f' {", ".join(released)}'
      )
  return {
      path: sae
      for path, sae in released.items()
      if not texts or any(text in path for text in texts)
  }


def _refuse(error: OSError) -> None:
  """Raises UserError for a folder that cannot be listed."""
  raise errors.UserError(
      f'{error.filename}: cannot be read ({error.strerror}); make it readable or'
      ' name another folder'
  ) from error


def _format_of(folder: pathlib.Path):
  """Returns the reader of the SAE in a folder, None if there is no SAE."""
  readers = (f for f in FORMATS.values() if f.recognises(folder))
  return next(readers, None)


def _by_number(name: str) -> tuple[list[int], str]:
  """Returns a sort key that puts layer_2 before layer_10."""
  digits = ''.join(c if c.isdigit() else ' ' for c in name).split()
  return [int(n) for n in digits], name
