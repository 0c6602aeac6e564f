"""Rows of tokens on disk, read by index.

A cache is a directory of ArrayRecord shards, one record per row, and a manifest
that is written last. When `TokenCache` opens a cache, it compares the size and
the number of records of every shard with the manifest, because ArrayRecord
opens a truncated file without an error and reports no records. ArrayRecord
checks the hash of each record that it reads, so a damaged record raises an
error.
"""

from collections.abc import Sequence
import operator
import os
import pathlib
from typing import Any

import numpy as np

from jumprelu import extras
from jumprelu.array_typing import Int32
from jumprelu.errors import DataError, MissingInputError
from jumprelu.files import json_files

FORMAT = 1
MANIFEST = 'manifest.json'
# Longer rows are those of no language model.
_MAX_LENGTH = 2**24


def _read_manifest(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / MANIFEST
  cure = 'remove the directory and prepare it again'
  if not directory.is_dir():
    raise MissingInputError(f'{directory}: no such token cache')
  if not path.exists():
    raise DataError(f'{path}: missing, so the cache is incomplete; {cure}')
  manifest = json_files.read_json(path, cure=cure)
  if not manifest.get('complete'):
    raise DataError(f'{path}: not marked as complete; {cure}')
  if manifest.get('format') != FORMAT:
    raise DataError(
        f'{path}: format {manifest.get("format")!r}, this version reads'
        f' {FORMAT}; {cure}'
    )
  names = ('records', 'shards', 'digest', 'sequence_length', 'dtype', 'split')
  for name in names:
    if name not in manifest:
      raise DataError(f'{path}: no field {name!r}; {cure}')
  if fault := _fault(manifest):
    raise DataError(f'{path}: {fault}; {cure}')
  if manifest['records'] != sum(s['records'] for s in manifest['shards']):
    raise DataError(
        f"{path}: records is not the sum of the shards' records; {cure}"
    )
  return manifest


def _fault(manifest: dict[str, Any]) -> str:
  """Returns the first field of a wrong type or value; '' if there is none."""
  shards = manifest['shards']
  if not isinstance(shards, list) or not all(map(_is_shard, shards)):
    return 'shards must list objects with file, records and bytes'
  names = [pathlib.PurePosixPath(shard['file']).name for shard in shards]
  if len(set(names)) != len(names):
    return 'shards names a file twice'
  if not _is_count(manifest['records']):
    return 'records must be a number of rows'
  if not 0 < _count(manifest['sequence_length']) <= _MAX_LENGTH:
    return f'sequence_length must be from 1 to {_MAX_LENGTH:,}'
  if manifest['dtype'] not in ('uint16', 'int32'):
    return 'dtype must be uint16 or int32'
  if not isinstance(manifest['digest'], str):
    return 'digest must be a text'
  prefix = manifest.get('user_prefix', ())
  if not isinstance(prefix, list | tuple) or not all(map(_is_count, prefix)):
    return 'user_prefix must list ids of tokens'
  return ''


def _is_shard(shard: Any) -> bool:
  return (
      isinstance(shard, dict)
      and isinstance(shard.get('file'), str)
      and _is_count(shard.get('records'))
      and _is_count(shard.get('bytes'))
  )


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**63


def _count(value: Any) -> int:
  return value if _is_count(value) else 0


def _open(paths: list[str]) -> Any:
  with extras.imports():
    from array_record.python import array_record_data_source

  return array_record_data_source.ArrayRecordDataSource(paths)


class TokenCache:
  """Rows of tokens; opening a cache checks its shards against its manifest.

  Opening raises MissingInputError if there is no such directory, and DataError
  if the cache is incomplete, damaged, or of another format.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    self.directory = pathlib.Path(directory)
    self.manifest = _read_manifest(self.directory)
    self._dtype = np.dtype(self.manifest['dtype'])
    self._ends = np.cumsum([s['records'] for s in self.manifest['shards']])
    for shard in self.manifest['shards']:
      self._check_shard(shard)
    paths = [str(self._path(s)) for s in self.manifest['shards']]
    self.source = _open(paths) if paths else ()

  def _path(self, shard: dict[str, Any]) -> pathlib.Path:
    # Only the file name is used, so that a manifest cannot name a file in
    # another directory.
    return self.directory / pathlib.PurePosixPath(shard['file']).name

  def _check_shard(self, shard: dict[str, Any]) -> None:
    # Imported here because training on stored activations does not need it.
    with extras.imports():
      from array_record.python import array_record_module

    path = self._path(shard)
    cure = 'remove the cache and prepare it again'
    if not path.is_file():
      raise DataError(f'{path}: shard is missing; {cure}')
    size = path.stat().st_size
    if size != shard['bytes']:
      raise DataError(
          f'{path}: shard has {size} bytes, the manifest lists'
          f' {shard["bytes"]}; {cure}'
      )
    records = 0
    reader = None
    try:
      reader = array_record_module.ArrayRecordReader(str(path))
      records = reader.num_records()
    except (RuntimeError, ValueError):
      pass  # `records` stays 0, so that the comparison below raises.
    finally:
      # The reader of a truncated file is not closed, because `close` would raise
      # an error that does not name the file.
      if reader is not None and records:
        reader.close()
    if records != shard['records']:
      raise DataError(
          f'{path}: shard holds {records} records, the manifest lists'
          f' {shard["records"]}; {cure}'
      )

  def __len__(self) -> int:
    return self.manifest['records']

  @property
  def digest(self) -> str:
    """The digest of all rows, which does not depend on the directory."""
    return self.manifest['digest']

  @property
  def sequence_length(self) -> int:
    """The number of tokens in a row."""
    return self.manifest['sequence_length']

  @property
  def user_prefix(self) -> tuple[int, ...]:
    """The ids of the chat prefix, which `packing.keep_mask` masks.

    It is empty if the documents are not wrapped in a chat.
    """
    return tuple(self.manifest.get('user_prefix', ()))

  def tokens_at(
      self, indices: Sequence[int] | np.ndarray
  ) -> Int32[np.ndarray, 'sequences positions']:
    """Returns the rows at `indices`, in that order.

    Raises:
      IndexError: if an index is negative or not below the number of rows.
      DataError: if a record is damaged; the message names it.
    """
    wanted = [operator.index(i) for i in indices]
    rows = np.empty((len(wanted), self.sequence_length), np.int32)
    if not wanted:
      return rows
    if min(wanted) < 0 or max(wanted) >= len(self):
      raise IndexError(
          f'{self.directory}: rows from {min(wanted)} to {max(wanted)} were'
          f' requested, out of range: the cache has rows 0 to {len(self) - 1}'
      )
    try:
      records = self.source.__getitems__(wanted)
    except (RuntimeError, ValueError):
      # Records are read one by one, so that the error names the damaged one.
      records = [self._read_record(i) for i in wanted]
    for n, record in enumerate(records):
      if len(record) != self._dtype.itemsize * self.sequence_length:
        raise self._fault(wanted[n], f'holds {len(record)} bytes')
      rows[n] = np.frombuffer(record, self._dtype)
    return rows

  def _read_record(self, index: int) -> bytes:
    try:
      return self.source[index]
    except (RuntimeError, ValueError) as e:
      raise self._fault(index, str(e).split(';')[0]) from None

  def _fault(self, index: int, reason: str) -> DataError:
    shard = int(np.searchsorted(self._ends, index, side='right'))
    record = index - (int(self._ends[shard - 1]) if shard else 0)
    path = self._path(self.manifest['shards'][shard])
    return DataError(
        f'{path}: record {record} is damaged ({reason}); remove the cache and'
        ' prepare it again'
    )
