"""Exports of SAEs to the formats of other tools, one file per format.

Exports are written to a temporary folder (`new_folder`), so that a refused one
leaves nothing. An SAE that a format cannot hold is refused by name.
Arrays keep their values: none is scaled, so latents and reconstructions are the
SAE's.
"""

from collections.abc import Iterator, Sequence
import contextlib
import importlib
import os
import pathlib
import tempfile
from typing import Any

from jumprelu import errors
from jumprelu.files import folder_kinds
from jumprelu.release.exports import source as source_lib

FORMATS = (
    'saelens',
    'dictionary_learning',
    'circuit_tracer',
    'gemma_scope',
    'gemma_scope_2',
    'saebench',
)


def write(
    sources: Sequence[source_lib.Source],
    out: pathlib.Path,
    *,
    to: str,
    **options: Any,
) -> list[str]:
  """Writes SAEs in a format of `FORMATS`; returns warnings.

  Args:
    sources: The SAEs.
    out: The folder to write, which exists and is empty (`new_folder`).
    to: The format.
    **options: Those of the format.

  Raises:
    UserError: the format cannot hold an SAE.
  """
  module = importlib.import_module(f'{__name__}.{to}')
  return module.write(sources, out, **options)


@contextlib.contextmanager
def new_folder(out: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary folder, which becomes `out` if the block succeeds.

  Raises:
    UserError: `out` is a file, not empty, or inside a release.
  """
  out = check_out(out)
  with tempfile.TemporaryDirectory(
      prefix=f'.{out.name}.', dir=out.parent
  ) as scratch:
    new = pathlib.Path(scratch) / 'new'
    new.mkdir()
    yield new
    new.rename(out)


def check_out(out: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder to write as an absolute path; its parent exists.

  Raises:
    UserError: it is a file, not empty, or inside a release.
  """
  out = pathlib.Path(out).absolute()
  folder_kinds.refuse_inside_release('out', out)
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise errors.UserError(f'{out}: not an empty folder; choose another --out')
  out.parent.mkdir(parents=True, exist_ok=True)
  return out
