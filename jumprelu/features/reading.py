"""Reads folders of features."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import numpy as np

from jumprelu import errors, extras
from jumprelu.files import formats, json_files

MANIFEST = 'manifest.json'
VOCABULARY = 'vocabulary.parquet'
TEXTS = 'texts.parquet'
EXPLANATIONS = 'explanations'
_MEMBERS = 'members'


def member_files(path: str) -> dict[str, str]:
  """Returns the names of a member's files, by field of the manifest."""
  name = f'{_MEMBERS}/{path if path != "." else "sae"}'
  return {
      'file': f'{name}.parquet',
      'text_firings': f'{name}.texts.parquet',
  }


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the manifest of a folder of features.

  Raises:
    MissingInputError: The folder has no manifest.
    DataError: The manifest is damaged, or of a newer format.
  """
  path = pathlib.Path(folder) / MANIFEST
  cure = 'collect them with: jumprelu features --release=DIR --out=DIR2'
  manifest = json_files.read_json(path, cure=cure)
  manifest = formats.migrate(formats.Kind.FEATURES, manifest, where=str(path))
  if fault := _fault(manifest):
    raise errors.DataError(f'{path}: {fault}; {cure}')
  return manifest


def _fault(manifest: dict[str, Any]) -> str:
  """Returns the first field of a wrong type; '' if there is none."""
  members = manifest.get('members')
  if not isinstance(members, list):
    return 'members is not a list'
  texts = ('path', 'sha256', *member_files('.'))
  for member in members:
    if not isinstance(member, dict):
      return 'a member is not an object'
    if type(member.get('width')) is not int:
      return 'the width of a member is not a whole number'
    for name in texts:
      if not isinstance(member.get(name), str):
        return f'{name} of a member is not a text'
  files = [manifest.get(name) for name in ('vocabulary', 'texts')]
  files += [member[name] for member in members for name in member_files('.')]
  # A file in another folder must not be read.
  if not all(isinstance(file, str) and _is_inside(file) for file in files):
    return 'a file is not the path of one in this folder'
  return ''


def _is_inside(file: str) -> bool:
  path = pathlib.PurePosixPath(file)
  return '\0' not in file and not path.is_absolute() and '..' not in path.parts


def read_latents(
    folder: str | os.PathLike[str],
    member: str,
    *,
    latents: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
  """Returns the rows of a member's latents, in order.

  Args:
    folder: The folder of features.
    member: The path of the member in the release.
    latents: The latents; all if None.
    columns: The columns; all if None.

  Raises:
    MissingInputError: There is no such folder, or a file is missing.
    UserError: The folder has no such member or latent.
  """
  if latents is not None:
    width = _member(folder, member)['width']
    if bad := [i for i in latents if not 0 <= i < width]:
      raise errors.UserError(
          f'latent {bad[0]}: {member} has latents 0 to {width - 1}'
      )
  table = _read(
      folder, _member(folder, member)['file'], columns=columns, rows=latents
  )
  return table.to_pylist()


def read_table(
    folder: str | os.PathLike[str],
    member: str,
    *,
    columns: Sequence[str] | None = None,
) -> Any:
  """Returns a member's latents as a table of pyarrow, a row per latent.

  Args:
    folder: The folder of features.
    member: The path of the member in the release.
    columns: The columns, which alone are read; all if None.

  Raises:
    MissingInputError: There is no such folder, or a file is missing.
    UserError: The folder has no such member.
  """
  return _read(folder, _member(folder, member)['file'], columns=columns)


def read_texts(folder: str | os.PathLike[str]) -> Any:
  """Returns the passages as a table of pyarrow, a row per passage.

  Its columns are text (the number of the passage), document and position (the
  cache positions where the document and the passage start), offset (between the
  two) and tokens (ids).

  Raises:
    MissingInputError: There is no such folder, or a file is missing.
  """
  file = read_manifest(folder)['texts']
  return _read(folder, file, wanted=('tokens',))


def read_text_firings(folder: str | os.PathLike[str], member: str) -> Any:
  """Returns a member's active latents in the passages as a table of pyarrow.

  It has a row for each token of each passage. Its columns are text (the number
  of the passage), index (the token's in the passage), latents (the active ones,
  from the largest to the smallest value) and values.

  Raises:
    MissingInputError: There is no such folder, or a file is missing.
    UserError: The folder has no such member.
  """
  file = _member(folder, member)['text_firings']
  return _read(folder, file, wanted=('latents', 'values'))


def read_vocabulary(folder: str | os.PathLike[str]) -> Any:
  """Returns the vocabulary as a table of pyarrow: token, piece and count.

  Raises:
    MissingInputError: There is no such folder, or a file is missing.
  """
  file = read_manifest(folder)['vocabulary']
  return _read(folder, file, wanted=('token', 'piece'))


def read_explanation_sets(
    folder: str | os.PathLike[str],
) -> dict[str, dict[str, Any]]:
  """Returns the manifests of the complete sets of explanations, by name.

  A folder has none until `jumprelu explain` has written one.

  Raises:
    DataError: A manifest is damaged, or of a newer format.
  """
  sets = {}
  parent = pathlib.Path(folder) / EXPLANATIONS
  for path in sorted(parent.glob(f'*/{MANIFEST}')):
    manifest = read_explanation_set(path.parent)
    if manifest.get('complete') is True:
      sets[path.parent.name] = manifest
  return sets


def read_explanation_set(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the manifest of a set of explanations; {} if it has none.

  Raises:
    DataError: The manifest is damaged, or of a newer format.
  """
  path = folder / MANIFEST
  cure = f'delete {folder} and write it again with: jumprelu explain'
  manifest = json_files.read_json(path, cure=cure, missing_ok=True)
  if not manifest:
    return {}
  return formats.migrate(formats.Kind.EXPLANATIONS, manifest, where=str(path))


def read_explanations(
    folder: str | os.PathLike[str], name: str, member: str
) -> Any:
  """Returns a member's explanations as a table of pyarrow, a row per latent.

  Args:
    folder: The folder of features.
    name: The name of the set of explanations.
    member: The path of the member in the release.

  Raises:
    MissingInputError: There is no such set or file.
    UserError: The folder has no such member.
  """
  file = _member(folder, member)['file']
  return _read(folder, f'{EXPLANATIONS}/{name}/{file}')


def _member(folder: str | os.PathLike[str], member: str) -> dict[str, Any]:
  """Returns the manifest's entry of a member."""
  members = {m['path']: m for m in read_manifest(folder)['members']}
  if member not in members:
    raise errors.UserError(
        f'{folder}: no member {member!r}; members: {", ".join(members)}'
    )
  return members[member]


def _read(
    folder: str | os.PathLike[str],
    name: str,
    *,
    columns: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    wanted: Sequence[str] = (),
) -> Any:
  """Returns a Parquet file as a table of pyarrow.

  Args:
    folder: The folder of features.
    name: The file in it.
    columns: The columns; all if None.
    rows: The numbers of the rows, which are returned in order; all if None.
    wanted: Columns without which the file counts as damaged.
  """
  with extras.imports():
    import pyarrow
    from pyarrow import parquet

  path = pathlib.Path(folder) / name
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file; collect it again')
  names = None if columns is None else list(columns)
  try:
    # `parquet.read_table` may wait for ever for a thread that met damage.
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
      table = _rows(file, names, rows)
    present = table.column_names
  except (pyarrow.ArrowException, OSError, ValueError) as error:
    raise errors.DataError(
        f'{path}: damaged ({str(error).splitlines()[0]}); collect it again'
    ) from error
  for name in wanted:
    if name not in present:
      raise errors.DataError(f'{path}: has no column {name}; collect it again')
  return table


def _rows(
    file: Any, columns: list[str] | None, rows: Sequence[int] | None
) -> Any:
  """Returns the rows of a Parquet file; reads only the groups with them."""
  if rows is None:
    return file.read(columns=columns)
  metadata = file.metadata
  sizes = [metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
  ends = np.cumsum(sizes)
  kept = np.unique(np.asarray(rows, np.int64))
  if kept.size and kept[-1] >= sum(sizes):
    raise ValueError(f'{sum(sizes)} rows, and row {kept[-1]} is missing')
  groups = np.searchsorted(ends, kept, side='right')
  read = np.unique(groups)
  table = file.read_row_groups(read.tolist(), columns=columns)
  # The number of each group's first row, in the file and in the table.
  starts = (ends - sizes)[read]
  at = np.cumsum([0, *np.take(sizes, read)])[:-1]
  group = np.searchsorted(read, groups)
  return table.take(kept - starts[group] + at[group])
