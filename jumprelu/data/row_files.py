"""Rows of JSON lines, JSON, CSV, Parquet and Arrow files.

Each reader yields a row's number and its fields, or a UserError for a row that
cannot be read although later ones can. An error of the whole file is raised.
Files that end in .gz or .zst are decompressed while they are read.
"""

from collections.abc import Iterator, Mapping
import contextlib
import csv
import gzip
import io
import json
import pathlib
from typing import Any, BinaryIO, NamedTuple
import zlib

from jumprelu import extras
from jumprelu.errors import DataError, UserError
from jumprelu.files import lfs

PACKED = ('.gz', '.zst')
# Sizes above which a line, or a file that is parsed as a whole, is refused.
_MAX_LINE = 2**28
_MAX_FILE = 2**30
# The bytes of one read of a file that is parsed as a whole.
_PART = 2**22


class Row(NamedTuple):
  """The number of a row and its fields, or the reason for their lack."""

  number: int
  fields: Mapping[str, Any] | UserError


def kind(path: pathlib.Path) -> str:
  """Returns the ending of a file in lower case, without that of compression."""
  suffixes = [s.lower() for s in path.suffixes]
  if suffixes and suffixes[-1] in PACKED:
    suffixes.pop()
  return suffixes[-1] if suffixes else ''


def is_packed(path: pathlib.Path) -> bool:
  """Returns whether a file is compressed as a whole."""
  return path.suffix.lower() in PACKED


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a file for reading bytes, decompressed.

  Raises:
    DataError: the file is a pointer of Git LFS, damaged or truncated.
  """
  lfs.refuse_pointer(path)
  try:
    if path.suffix.lower() == '.gz':
      with gzip.open(path) as file:
        yield file  # pyright: ignore[reportReturnType]
    elif path.suffix.lower() == '.zst':
      with extras.imports():
        import pyarrow

      with pyarrow.input_stream(str(path), compression='zstd') as file:
        # Adds lines to pyarrow's bytes.
        yield io.BufferedReader(file)  # pyright: ignore[reportArgumentType]
    else:
      with path.open('rb') as file:
        yield file
  except (EOFError, zlib.error, gzip.BadGzipFile) as e:
    raise DataError(
        f'{path}: damaged or truncated ({e}); fetch it again'
    ) from None
  except OSError as e:
    if path.suffix.lower() != '.zst':
      raise
    raise DataError(
        f'{path}: damaged or truncated ({e}); fetch it again'
    ) from None


def read_whole(path: pathlib.Path) -> bytes:
  """Returns the content of a file that is not read row by row.

  Raises:
    DataError: the file is damaged, or larger than 1 GiB when decompressed.
  """
  parts, size = [], 0
  with opened(path) as file:
    # A single read would allocate the whole limit.
    while part := file.read(_PART):
      parts.append(part)
      size += len(part)
      if size > _MAX_FILE:
        raise DataError(
            f'{path}: larger than {_MAX_FILE // 2**20} MiB; convert it to JSON'
            ' lines (.jsonl), which are read line by line'
        )
  return b''.join(parts)


def decode(raw: bytes, place: str) -> str:
  """Returns UTF-8 text without its byte order mark; raises UserError."""
  try:
    return raw.decode('utf-8-sig')
  except UnicodeDecodeError as e:
    raise UserError(
        f'{place}: not UTF-8 (byte {e.start} is 0x{raw[e.start]:02x}); convert'
        ' it, for example with iconv -t UTF-8'
    ) from None


def rows(path: pathlib.Path, *, field: str) -> Iterator[Row]:
  """Yields the rows of a file; `field` is the only one that is needed.

  Raises:
    DataError: the file is damaged.
  """
  readers = {
      '.json': _json,
      '.csv': _csv,
      '.parquet': _parquet,
      '.arrow': _arrow,
  }
  reader = readers.get(kind(path), _json_lines)
  if reader in (_parquet, _arrow):
    if is_packed(path):
      raise UserError(f'{path}: decompress it, because it is read in parts')
    lfs.refuse_pointer(path)
  yield from reader(path, field)


def _json_lines(path: pathlib.Path, field: str) -> Iterator[Row]:
  del field
  with opened(path) as file:
    number = 0
    while raw := file.readline(_MAX_LINE + 1):
      number += 1
      if len(raw) > _MAX_LINE:
        raise DataError(
            f'{path}:{number}: a line of more than {_MAX_LINE // 2**20} MiB;'
            ' write one JSON object per line'
        )
      try:
        line = decode(raw, f'{path}:{number}')
        if line.strip():
          yield Row(number, _object(line, f'{path}:{number}'))
      except UserError as error:
        yield Row(number, error)


def _object(line: str, place: str) -> Mapping[str, Any]:
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as e:
    # `msg` has no position, which would be that in the line.
    reason = getattr(e, 'msg', None) or str(e)
    raise UserError(
        f'{place}: not JSON ({reason}); write one JSON object per line'
    ) from None
  if not isinstance(record, dict):
    raise UserError(
        f'{place}: not a JSON object but {line.strip()[:20]}; write one'
        ' JSON object per line'
    )
  return record


def _json(path: pathlib.Path, field: str) -> Iterator[Row]:
  """Yields the objects of a list, of an object, or of lines."""
  raw = read_whole(path)
  try:
    value = json.loads(decode(raw, str(path)))
  except (ValueError, RecursionError):
    yield from _json_lines(path, field)
    return
  for number, record in enumerate(
      value if isinstance(value, list) else [value]
  ):
    if isinstance(record, dict):
      yield Row(number, record)
    else:
      text = json.dumps(record)[:20]
      yield Row(
          number,
          UserError(
              f'{path}: entry {number}: not a JSON object but {text}; write a'
              ' list of objects'
          ),
      )


def _csv(path: pathlib.Path, field: str) -> Iterator[Row]:
  text = decode(read_whole(path), str(path))
  csv.field_size_limit(_MAX_LINE)
  lines = csv.DictReader(text.splitlines(keepends=True), strict=True)
  number = 0
  try:
    # Reads the first line.
    _require(lines.fieldnames or (), field, path)
    for number, record in enumerate(lines):
      yield Row(number, record)
  except csv.Error as e:
    raise DataError(
        f'{path}: row {number}: not CSV ({e}); write it again, with quotes'
        ' around texts'
    ) from None


def _require(names: Any, field: str, path: pathlib.Path) -> None:
  if field not in names:
    raise UserError(
        f'{path}: no field {field!r} among {sorted(names)}; name the field'
        ' that holds the text with --corpus.text_field'
    )


def _parquet(path: pathlib.Path, field: str) -> Iterator[Row]:
  """Yields rows; those of a damaged group are errors, one each."""
  with extras.imports():
    import pyarrow
    from pyarrow import parquet

  damage = (pyarrow.ArrowException, OSError, ValueError)
  try:
    file = parquet.ParquetFile(path)
  except damage as e:
    raise DataError(f'{path}: not a Parquet file ({e})') from None
  with file:
    _require(file.schema_arrow.names, field, path)
    number = 0
    for group in range(file.num_row_groups):
      end = number + file.metadata.row_group(group).num_rows
      try:
        for batch in file.iter_batches(
            1024, row_groups=[group], columns=[field]
        ):
          for value in batch.column(0).to_pylist():
            yield Row(number, {field: value})
            number += 1
      except damage as e:
        error = DataError(
            f'{path}: rows {number} to {end - 1} are damaged'
            f' ({" ".join(str(e).split())}); fetch it again'
        )
        for damaged in range(number, end):
          yield Row(damaged, error)
      number = end


def _arrow(path: pathlib.Path, field: str) -> Iterator[Row]:
  """Yields the rows of an Arrow file or stream, as datasets writes them."""
  with extras.imports():
    import pyarrow

  number = 0
  try:
    # A mapped file would be read without checks of its bounds.
    with pyarrow.OSFile(str(path)) as file:
      try:
        reader = pyarrow.ipc.open_stream(file)
        batches = iter(reader)
      except pyarrow.ArrowInvalid:
        file.seek(0)
        reader = pyarrow.ipc.open_file(file)
        batches = map(reader.get_batch, range(reader.num_record_batches))
      _require(reader.schema.names, field, path)
      for batch in batches:
        # Damaged offsets would lead to memory outside of the batch.
        batch.validate(full=True)
        for value in batch.column(field).to_pylist():
          yield Row(number, {field: value})
          number += 1
  except UserError:
    raise
  except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as e:
    raise DataError(
        f'{path}: row {number}: not a whole Arrow file'
        f' ({" ".join(str(e).split())}); fetch it again'
    ) from None
