"""The text files of a file or folder, and the files that are left out.

Every file of a folder is either read or named as left out, with the reason.
"""

from collections.abc import Iterator
import os
import pathlib
import re
from typing import NamedTuple

from jumprelu.data import row_files
from jumprelu.errors import MissingInputError, UserError

PLAIN = ('.txt', '.md', '.py')
LINES = ('.jsonl', '.ndjson', '.jsonlines')
_ROWS = (*LINES, '.parquet', '.arrow')
# Read from a folder only if it holds no other text, because in folders of code
# these are settings and tables.
_RARE = ('.json', '.csv')
SUFFIXES = (*PLAIN, *_ROWS, *_RARE)

# Files that describe a dataset, by their names in lower case without ending.
_ABOUT = {'readme', 'license', 'licence', 'notice', 'citation'}
# Descriptions that the library datasets writes.
_RECORDS = {
    'dataset_dict.json',
    'dataset_info.json',
    'dataset_infos.json',
    'state.json',
}
_TRAIN = re.compile(r'(?<![a-z0-9])train(ing)?(?![a-z0-9])')
_OTHER_SPLIT = re.compile(
    r'(?<![a-z0-9])(test|validation|valid|val|dev|eval)(?![a-z0-9])'
)
_SHOWN = 3


class FileList(NamedTuple):
  """The files to read, in order, and those left out by reason."""

  files: list[pathlib.Path]
  left_out: dict[str, list[str]]


def list_files(path: pathlib.Path) -> FileList:
  """Returns the files of known kinds below a folder, or the file itself.

  Links are followed. In a folder with rows of text, a README, a licence and a
  loading script are left out. If a file of rows is named as a train split,
  those of test and validation splits are left out.

  Raises:
    MissingInputError: the path does not exist, or has no text in it.
    UserError: it is a file of an unknown kind, or holds a folder that cannot be
      read or a broken link.
  """
  if not path.exists():
    raise MissingInputError(
        f'{path}: no such file or directory; --data is stdlib, python, a file'
        ' or folder, tfds:NAME or tokens:FOLDER (nothing is downloaded: fetch'
        ' datasets first)'
    )
  if path.is_file():
    if row_files.kind(path) not in SUFFIXES:
      raise UserError(
          f'{path}: unknown kind of file; use one of {" ".join(SUFFIXES)}, also'
          f' with {" or ".join(row_files.PACKED)}'
      )
    return FileList([path], {})
  left_out: dict[str, list[str]] = {}
  files = []
  for file in sorted(_walk(path)):
    if reason := _reason(file, path):
      left_out.setdefault(reason, []).append(file.relative_to(path).as_posix())
    else:
      files.append(file)
  files = _without_settings(files, path, left_out)
  files = _without_descriptions(files, path, left_out)
  files = _without_other_splits(files, path, left_out)
  files = _without_copies(files, path, left_out)
  if not files:
    raise MissingInputError(
        f'{path}: no file ending in {" ".join(SUFFIXES)} in this folder'
    )
  return FileList(files, left_out)


def describe(left_out: dict[str, list[str]]) -> str:
  """Returns the numbers and first names of files left out; '' for none."""
  parts = []
  for reason, names in left_out.items():
    shown = ', '.join(names[:_SHOWN])
    more = f' and {len(names) - _SHOWN:,} more' if len(names) > _SHOWN else ''
    parts.append(f'{shown}{more} ({reason})')
  count = sum(map(len, left_out.values()))
  return f'{count:,} left out: {"; ".join(parts)}' if parts else ''


def _walk(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields all files and hidden folders below a folder; follows links."""

  def refuse(error: OSError) -> None:
    raise UserError(
        f'{error.filename}: cannot be read ({error.strerror}); make it readable'
        ' or move it out of the folder'
    )

  seen = set()
  for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
    real = os.path.realpath(folder)
    if real in seen:
      folders.clear()  # A link to a folder that was already read.
      continue
    seen.add(real)
    hidden = [name for name in folders if name.startswith('.')]
    folders[:] = sorted(name for name in folders if name not in hidden)
    for name in (*hidden, *names):
      yield pathlib.Path(folder, name)


def _reason(file: pathlib.Path, root: pathlib.Path) -> str:
  """Returns why a file is left out whatever the others are; '' to read it."""
  if any(part.startswith('.') for part in file.relative_to(root).parts):
    return 'hidden'
  if not file.exists():
    if row_files.kind(file) in SUFFIXES:
      raise UserError(f'{file}: a link to a missing file; remove or repair it')
    return 'broken link'
  if not file.is_file():
    return 'no regular file'
  if row_files.kind(file) not in SUFFIXES:
    return 'unknown kind'
  is_cache = file.name.startswith('cache-') and file.suffix == '.arrow'
  if file.name in _RECORDS or is_cache:
    return 'record of the library datasets'
  return ''


def _split(files, root, left_out, *, keep, reason):
  """Returns the files that `keep` accepts; adds the others to `left_out`."""
  kept = []
  for file in files:
    if keep(file):
      kept.append(file)
    else:
      names = left_out.setdefault(reason, [])
      names.append(file.relative_to(root).as_posix())
  return kept


def _without_settings(files, root, left_out):
  common = [f for f in files if row_files.kind(f) not in _RARE]
  # A README alone is not the folder's text.
  if not any(not _is_about(f) for f in common):
    return files
  return _split(
      files,
      root,
      left_out,
      keep=lambda f: row_files.kind(f) not in _RARE,
      reason=f'{" and ".join(_RARE)} beside other text',
  )


def _is_about(file: pathlib.Path) -> bool:
  stem = re.split(r'[^a-z]', file.name.lower())[0]
  return row_files.kind(file) in PLAIN and stem in _ABOUT


def _without_descriptions(files, root, left_out):
  plain = [f for f in files if row_files.kind(f) in PLAIN]
  about = {f for f in plain if _is_about(f)}
  rest = [f for f in plain if f not in about]
  is_script = len(rest) == 1 and rest[0].parent == root
  if (
      len(plain) == len(files)
      or rest
      and not (is_script and rest[0].suffix == '.py')
  ):
    return files
  return _split(
      files,
      root,
      left_out,
      keep=lambda f: f not in plain,
      reason='description of the dataset',
  )


def _without_other_splits(files, root, left_out):
  def matches(pattern, file):
    name = file.relative_to(root).as_posix().lower()
    return row_files.kind(file) not in PLAIN and pattern.search(name)

  if not any(matches(_TRAIN, f) for f in files):
    return files
  return _split(
      files,
      root,
      left_out,
      keep=lambda f: matches(_TRAIN, f) or not matches(_OTHER_SPLIT, f),
      reason='other split than train',
  )


def _without_copies(files, root, left_out):
  seen = set()

  def is_new(file):
    real = os.path.realpath(file)
    is_new = real not in seen
    seen.add(real)
    return is_new

  return _split(
      files, root, left_out, keep=is_new, reason='link to a file that is read'
  )
