"""Reads folders of features."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from jumprelu import errors, extras
from jumprelu.files import formats, json_files

MANIFEST = 'manifest.json'
VOCABULARY = 'vocabulary.parquet'
MEMBERS = 'members'


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the manifest of a folder of features.

  Raises:
    MissingInputError: The folder has no manifest.
    DataError: The manifest is damaged, or of a newer format.
  """
  path = pathlib.Path(folder) / MANIFEST
  cure = 'collect them with: jumprelu features --release=DIR --out=DIR2'
  manifest = json_files.read_json(path, cure=cure)
  return formats.migrate(formats.Kind.FEATURES, manifest, where=str(path))


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
  table = read_table(folder, member, latents=latents, columns=columns)
  return table.to_pylist()


def read_table(
    folder: str | os.PathLike[str],
    member: str,
    *,
    latents: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> Any:
  """Returns the rows of a member's latents as an Arrow table.

  The arguments and errors are those of `read_latents`.
  """
  members = {m['path']: m for m in read_manifest(folder)['members']}
  if member not in members:
    raise errors.UserError(
        f'{folder}: no member {member!r}; members: {", ".join(members)}'
    )
  width, wanted = members[member]['width'], latents
  if wanted is not None:
    if bad := [i for i in wanted if not 0 <= i < width]:
      raise errors.UserError(
          f'latent {bad[0]}: {member} has latents 0 to {width - 1}'
      )
    wanted = [('latent', 'in', list(wanted))]
  path = pathlib.Path(folder) / members[member]['file']
  names = None if columns is None else list(columns)
  return _read(path, columns=names, filters=wanted)


def read_vocabulary(folder: str | os.PathLike[str]) -> Any:
  """Returns the Arrow table of token ids, pieces and counts in the text.

  Raises:
    MissingInputError: There is no such folder, or the file is missing.
  """
  return _read(pathlib.Path(folder) / read_manifest(folder)['vocabulary'])


def _read(path: pathlib.Path, **options: Any) -> Any:
  with extras.imports():
    import pyarrow
    from pyarrow import parquet

  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file; collect it again')
  try:
    return parquet.read_table(path, **options)
  except (pyarrow.ArrowException, OSError) as error:
    raise errors.DataError(
        f'{path}: damaged ({str(error).splitlines()[0]}); collect it again'
    ) from error
