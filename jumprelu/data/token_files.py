"""Text that is already tokenised: ArrayRecord files of documents.

Each record is one document: its token ids as little-endian int32. A BOS at the
start and an EOS at the end of a document are removed, because `packing` adds
both. The hash of the remaining ids decides whether the document is held out.
"""

from collections.abc import Iterator
import functools
import hashlib
import pathlib
import re
from typing import Any

import numpy as np

from jumprelu import extras
from jumprelu.data import file_list
from jumprelu.data.cache_writer import Encoded
from jumprelu.data.documents import Split
from jumprelu.data.packing import BOS, EOS, PAD
from jumprelu.errors import DataError, MissingInputError

_NAME = re.compile(r'\.array_record(-[0-9]+-of-[0-9]+)?$')
_SHARD = re.compile(r'(.*\.array_record)-([0-9]+)-of-([0-9]+)')


class TokenFiles:
  """The documents of ArrayRecord files: a file, or those of a directory.

  Files end in .array_record or, as a shard, .array_record-00000-of-00002. They
  are sorted by name.

  Attributes:
    name: The name of the directory or file.
    left_out: The names of the directory's other files.
  """

  def __init__(self, path: pathlib.Path, *, vocab_size: int):
    if not path.exists():
      raise MissingInputError(f'tokens:{path}: no such file or folder')
    self.name = path.name
    self._vocab_size = vocab_size
    files = [path]
    if path.is_dir():
      files = sorted(p for p in path.iterdir() if p.is_file())
    self._paths = [p for p in files if _NAME.search(p.name)]
    self.left_out = [p.name for p in files if p not in self._paths]
    if not self._paths:
      raise MissingInputError(
          f'tokens:{path}: neither a folder with train/ and held_out/ caches or'
          ' *.array_record files, nor such a file'
      )

  def notice(self) -> str:
    """Returns a line about other files and missing shards; '' if complete."""
    sets: dict[tuple[str, str], set[int]] = {}
    for path in self._paths:
      if match := _SHARD.fullmatch(path.name):
        stem, number, count = match.groups()
        sets.setdefault((stem, count), set()).add(int(number))
    parts = [
        f'{stem} has {len(numbers)} of {int(count)} shards'
        for (stem, count), numbers in sets.items()
        if len(numbers) < int(count)
    ]
    if self.left_out:
      parts.append(file_list.describe({'no ArrayRecord file': self.left_out}))
    return '; '.join(parts)

  @functools.cached_property
  def _digest(self) -> str:
    digest = hashlib.sha256()
    for path in self._paths:
      with path.open('rb') as file:
        file_digest = hashlib.file_digest(file, 'sha256').hexdigest()
      digest.update(f'{path.name}\0{file_digest}\n'.encode())
    return digest.hexdigest()

  def describe(self) -> dict[str, Any]:
    """Returns the number of files and a digest of their contents."""
    return {
        'kind': 'tokens',
        'name': self.name,
        'files': len(self._paths),
        'digest': self._digest,
    }

  def encoded(self, split: Split, skip: int) -> Iterator[Encoded]:
    """Yields all documents except the first `skip`; their `text_bytes` is 0."""
    number = 0
    for path in self._paths:
      records = self._open(path)
      for i in range(len(records)):
        number += 1
        if number <= skip:
          continue
        try:
          raw = records[i]
        except (RuntimeError, ValueError) as e:
          raise DataError(f'{path}: record {i} is damaged ({e})') from None
        tokens = self._tokens(raw, f'{path}: record {i}')
        key = hashlib.sha256(tokens.tobytes()).hexdigest()
        yield Encoded(split.holds_out(key), tokens.tolist(), 0)

  def _open(self, path: pathlib.Path):
    with extras.imports():
      from array_record.python import array_record_data_source

    try:
      records = array_record_data_source.ArrayRecordDataSource(str(path))
    except (RuntimeError, ValueError) as e:
      raise DataError(f'{path}: not an ArrayRecord file ({e})') from None
    if not len(records):
      raise DataError(f'{path}: empty or truncated; write it again')
    return records

  def _tokens(self, raw: bytes, place: str) -> np.ndarray:
    if len(raw) % 4:
      raise DataError(f'{place}: {len(raw)} bytes are not int32 token ids')
    tokens = np.frombuffer(raw, '<i4')
    if len(tokens) and tokens[0] == BOS:
      tokens = tokens[1:]
    if len(tokens) and tokens[-1] == EOS:
      tokens = tokens[:-1]
    bad = (tokens < 0) | (tokens >= self._vocab_size)
    bad |= (tokens == PAD) | (tokens == BOS) | (tokens == EOS)
    if bad.any():
      raise DataError(
          f'{place}: token id {tokens[bad.argmax()]} inside a document; ids'
          f' must be below {self._vocab_size} and not PAD, EOS or BOS'
      )
    return tokens
