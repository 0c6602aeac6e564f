"""Text from the user's own files: .txt .md .py, .jsonl, .parquet.

A text file, a line of JSONL and a row of Parquet are one document each. A long
.txt or .md file is split between paragraphs into several documents, so that a
single book has documents to train on and to hold out. The hash of a document's
text decides whether it is held out, so copies of a text are never in both
splits.
"""

from collections.abc import Iterator
import functools
import hashlib
import json
import pathlib
from typing import Any

from jumprelu import extras
from jumprelu.data.documents import Document, sha256
from jumprelu.errors import DataError, MissingInputError, UserError

_PLAIN = ('.txt', '.md', '.py')
_SUFFIXES = (*_PLAIN, '.jsonl', '.parquet')
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


def _find_files(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of known kinds below a directory, or the file itself."""
  if not path.exists():
    raise MissingInputError(
        f'{path}: no such file or directory; --data is stdlib, python, a file'
        ' or folder, tfds:NAME or tokens:FOLDER'
    )
  if path.is_file():
    if path.suffix.lower() not in _SUFFIXES:
      raise UserError(
          f'{path}: unknown kind of file; use one of {" ".join(_SUFFIXES)}'
      )
    return [path]
  files = sorted(
      p
      for p in path.rglob('*')
      if p.suffix.lower() in _SUFFIXES
      and p.is_file()
      and not any(x.startswith('.') for x in p.relative_to(path).parts)
  )
  if not files:
    raise MissingInputError(
        f'{path}: no file ending in {" ".join(_SUFFIXES)} in this folder'
    )
  return files


def _decode(raw: bytes, place: str) -> str:
  try:
    return raw.decode('utf-8-sig')
  except UnicodeDecodeError as e:
    raise UserError(
        f'{place}: not UTF-8 (byte {e.start} is 0x{raw[e.start]:02x}); convert'
        ' it, for example with iconv -t UTF-8'
    ) from None


class TextFiles:
  """The documents of files and directories.

  `paths` are read in order, and the files of each directory in sorted order.
  """

  def __init__(self, paths: list[str], *, text_field: str):
    self._text_field = text_field
    # Pairs (name, path); a name starts with the last part of its entry in
    # `paths`, so that it does not depend on the parent directory.
    self._files = []
    for root in map(pathlib.Path, paths):
      for path in _find_files(root):
        inner = path.relative_to(root).as_posix() if path != root else ''
        name = '/'.join(filter(None, (root.resolve().name, inner)))
        self._files.append((name, path))
      if root.is_file() and not root.stat().st_size:
        raise UserError(f'{root}: empty file; use a file with text in it')
    self.name = self._files[0][0].split('/')[0]

  @functools.cached_property
  def _read(self) -> tuple[int, str]:
    """Returns the size and digest of all files.

    Also decodes the .txt, .md and .py files, so that undecodable text raises a
    UserError before any other work.
    """
    digest = hashlib.sha256(self._text_field.encode())
    size = 0
    for name, path in self._files:
      file_digest = hashlib.sha256()
      if path.suffix.lower() in _PLAIN:
        raw = path.read_bytes()
        _decode(raw, str(path))
        file_digest.update(raw)
        size += len(raw)
      else:
        with path.open('rb') as file:
          while chunk := file.read(2**20):
            file_digest.update(chunk)
            size += len(chunk)
      digest.update(f'{name}\0{file_digest.hexdigest()}\n'.encode())
    return size, digest.hexdigest()

  def describe(self) -> dict[str, Any]:
    """Returns counts and a digest of names and contents; no local paths."""
    size, digest = self._read
    return {
        'kind': 'files',
        'name': self.name,
        'files': len(self._files),
        'bytes': size,
        'text_field': self._text_field,
        'digest': digest,
    }

  def documents(self) -> Iterator[Document]:
    """Yields the documents file by file; empty documents are skipped."""
    empty = True
    for name, path in self._files:
      kind = path.suffix.lower()
      if kind == '.jsonl':
        documents = self._json_lines(name, path)
      elif kind == '.parquet':
        documents = self._parquet_rows(name, path)
      else:
        documents = self._plain(name, path)
      for document in documents:
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
    """Returns the bytes of all files; 0 with Parquet, which is compressed."""
    if any(p.suffix.lower() == '.parquet' for _, p in self._files):
      return 0
    return self._read[0]

  def summary(self) -> str:
    """Returns name, number of files and bytes on the disk."""
    size = sum(path.stat().st_size for _, path in self._files)
    return f'{self.name}, {len(self._files):,} files, {size / 1e6:,.1f} MB'

  def _plain(self, name: str, path: pathlib.Path) -> Iterator[Document]:
    text = _decode(path.read_bytes(), str(path))
    parts = [text] if path.suffix.lower() == '.py' else split_text(text)
    for i, part in enumerate(parts):
      yield Document(name if len(parts) == 1 else f'{name}#{i}', part)

  def _json_lines(self, name: str, path: pathlib.Path) -> Iterator[Document]:
    with path.open('rb') as file:
      for number, raw in enumerate(file, start=1):
        place = f'{path}:{number}'
        line = _decode(raw, place)
        if not line.strip():
          continue
        try:
          record = json.loads(line)
        except json.JSONDecodeError as e:
          raise UserError(
              f'{place}: not JSON ({e.msg}); write one JSON object per line'
          ) from None
        if not isinstance(record, dict):
          raise UserError(
              f'{place}: not a JSON object but {line.strip()[:20]}; write one'
              ' JSON object per line'
          )
        yield Document(f'{name}:{number}', self._text_of(record, place))

  def _text_of(self, record: dict[str, Any], place: str) -> str:
    text = record.get(self._text_field)
    if isinstance(text, str):
      return text
    if self._text_field in record:
      raise UserError(
          f'{place}: field {self._text_field!r} is {type(text).__name__}, must'
          ' be a string'
      )
    raise UserError(
        f'{place}: no field {self._text_field!r} among {sorted(record)}; name'
        ' the field that holds the text with --corpus.text_field'
    )

  def _parquet_rows(self, name: str, path: pathlib.Path) -> Iterator[Document]:
    with extras.imports():
      import pyarrow
      from pyarrow import parquet

    try:
      file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as e:
      raise DataError(f'{path}: not a Parquet file ({e})') from None
    with file:
      columns = file.schema_arrow.names
      if self._text_field not in columns:
        self._text_of(dict.fromkeys(columns), str(path))
      number = 0
      for batch in file.iter_batches(1024, columns=[self._text_field]):
        for value in batch.column(0).to_pylist():
          record = {self._text_field: value}
          text = self._text_of(record, f'{path}: row {number}')
          yield Document(f'{name}:{number}', text)
          number += 1
