"""Text from the user's own files: plain text, and rows of tables.

A text file and a row of JSON lines, JSON, CSV, Parquet or Arrow are one document
each. A long .txt or .md file is split between paragraphs into several documents,
so that a single book has documents to train on and to hold out. The hash of a
document's text decides whether it is held out, so copies of a text are never in
both splits.
"""

from collections.abc import Iterator
import functools
import hashlib
import os
import pathlib
from typing import Any

from jumprelu.data import file_digests, file_list, row_files
from jumprelu.data.bad_rows import BadRows
from jumprelu.data.documents import Document, sha256
from jumprelu.errors import UserError
from jumprelu.files import cache_folder, remote

# A text of more than `_LONG` characters is split into parts of `_PART` to
# 2 * `_PART` characters; the last part may be shorter.
_LONG = 65_536
_PART = 16_384


def split_text(text: str) -> list[str]:
  """Returns the parts of a long text, split after blank lines if possible.

  A part ends after the first blank line between `_PART` and 2 * `_PART`
  characters. Without one in this range, it ends after the first line end, else
  after the first space, else at 2 * `_PART` characters. The concatenated parts
  equal the text.
  """
  if len(text) <= _LONG:
    return [text]
  parts = []
  start = 0
  while len(text) - start > 2 * _PART:
    end = start + 2 * _PART
    for mark in ('\n\n', '\n', ' '):
      position = text.find(mark, start + _PART, end)
      if position >= 0:
        end = position + len(mark)
        break
    parts.append(text[start:end])
    start = end
  return [*parts, text[start:]]


class TextFiles:
  """The documents of files and directories.

  `paths` are read in order, and the files of each directory in sorted order.

  Attributes:
    name: The last part of the first path.
    left_out: The files of directories that are not read, by reason.
    bad_rows: The numbers of rows of the last pass.
  """

  def __init__(
      self,
      paths: list[str],
      *,
      text_field: str,
      max_bad_rows: float = 0.0,
      cache_dir: str = '',
  ):
    self._text_field = text_field
    self._cache = cache_folder.of(cache_dir)
    self._max_bad_rows = max_bad_rows
    self.bad_rows = BadRows(max_bad_rows)
    self.left_out: dict[str, list[str]] = {}
    # Pairs (name, path); a name starts with the last part of its entry in
    # `paths`, so that it does not depend on the parent directory.
    self._files = []
    for root in (remote.local('data', path) for path in paths):
      files, left_out = file_list.list_files(root)
      for reason, names in left_out.items():
        self.left_out.setdefault(reason, []).extend(names)
      first = root.resolve().name
      for path in files:
        inner = path.relative_to(root).as_posix() if path != root else ''
        name = '/'.join(filter(None, (first, inner)))
        self._files.append((name, path))
      if root.is_file() and not root.stat().st_size:
        raise UserError(f'{root}: empty file; use a file with text in it')
    _refuse_repeated([path for _, path in self._files])
    self.name = self._files[0][0].split('/')[0]

  @functools.cached_property
  def _read(self) -> tuple[int, str]:
    """Returns the size and digest of all files.

    Also decodes the .txt, .md and .py files, so that undecodable text raises a
    UserError before any other work.
    """
    digest = hashlib.sha256(self._text_field.encode())
    parts = file_digests.digests(
        [path for _, path in self._files], cache=self._cache, check=_decode
    )
    for (name, _), part in zip(self._files, parts, strict=True):
      # A name may have bytes that are not UTF-8.
      line = f'{name}\0{part.sha256}\n'
      digest.update(line.encode('utf-8', 'surrogateescape'))
    size = sum(part.size for part in parts)
    return size, digest.hexdigest()

  def describe(self) -> dict[str, Any]:
    """Returns counts and a digest of names and contents; no local paths."""
    size, digest = self._read
    share = self._max_bad_rows
    return {
        'kind': 'files',
        'name': self.name,
        'files': len(self._files),
        'bytes': size,
        'text_field': self._text_field,
        'digest': digest,
        **({'max_bad_rows': share} if share else {}),
    }

  def documents(self) -> Iterator[Document]:
    """Yields the documents file by file; empty documents are skipped."""
    empty = True
    self.bad_rows.start()
    for name, path in self._files:
      is_plain = row_files.kind(path) in file_list.PLAIN
      read = self._plain if is_plain else self._rows
      for document in read(name, path):
        if document.text.strip():
          empty = False
          yield document
    if empty:
      raise UserError(
          f'{self._files[0][1]}: no text in it, only white space; use a'
          ' file with text in it'
      )

  def split_key(self, document: Document) -> str:
    """Returns the hash of the text without surrounding white space."""
    return sha256(document.text.strip())

  def size(self) -> int:
    """Returns the bytes of all files; 0 if a file is compressed."""
    packed = ('.parquet', '.arrow')
    if any(
        row_files.kind(p) in packed or row_files.is_packed(p)
        for _, p in self._files
    ):
      return 0
    return self._read[0]

  def summary(self) -> str:
    """Returns name, number of files and bytes on the disk."""
    size = sum(path.stat().st_size for _, path in self._files)
    return f'{self.name}, {len(self._files):,} files, {size / 1e6:,.1f} MB'

  def _plain(self, name: str, path: pathlib.Path) -> Iterator[Document]:
    text = row_files.decode(row_files.read_whole(path), str(path))
    parts = [text] if row_files.kind(path) == '.py' else split_text(text)
    for i, part in enumerate(parts):
      yield Document(name if len(parts) == 1 else f'{name}#{i}', part)

  def _rows(self, name: str, path: pathlib.Path) -> Iterator[Document]:
    for row in row_files.rows(path, field=self._text_field):
      if isinstance(row.fields, UserError):
        self.bad_rows.bad(row.fields)
        continue
      try:
        text = self._text_of(row, path)
      except UserError as error:
        self.bad_rows.bad(error)
        continue
      self.bad_rows.good()
      yield Document(f'{name}:{row.number}', text)
    self.bad_rows.end_file(str(path))

  def _text_of(self, row: row_files.Row, path: pathlib.Path) -> str:
    by_line = row_files.kind(path) in file_list.LINES
    place = f'{path}:{row.number}' if by_line else f'{path}: row {row.number}'
    record: Any = row.fields
    text = record.get(self._text_field)
    if self._text_field not in record:
      raise UserError(
          f'{place}: no field {self._text_field!r} among {sorted(record)}; name'
          ' the field that holds the text with --corpus.text_field'
      )
    if not isinstance(text, str):
      raise UserError(
          f'{place}: field {self._text_field!r} is {type(text).__name__}, must'
          ' be a string'
      )
    try:
      text.encode()
    except UnicodeEncodeError as e:
      raise UserError(
          f'{place}: half a character (lone surrogate) at index {e.start};'
          ' remove it'
      ) from None
    return text


def _decode(path: pathlib.Path) -> None:
  """Raises UserError if plain text cannot be decoded."""
  if row_files.kind(path) in file_list.PLAIN:
    row_files.decode(row_files.read_whole(path), str(path))


def _refuse_repeated(paths: list[pathlib.Path]) -> None:
  """Raises UserError if a file is among the paths twice."""
  by_real: dict[str, pathlib.Path] = {}
  for path in paths:
    other = by_real.setdefault(os.path.realpath(path), path)
    if other is not path:
      raise UserError(
          f'--data holds the file {path} twice, also as {other}; name it once'
      )
