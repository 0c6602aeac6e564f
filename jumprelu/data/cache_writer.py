"""Writes documents into a train and a held-out cache, in one pass.

When the two caches together have `rows_per_shard` new rows, each writes its
rows as a shard, and then the progress is written: the number of documents read
and, per cache, its counts, its shards and the tokens of its unfinished row. An
interrupted writer resumes from this progress and writes the same bytes as an
uninterrupted one.
"""

from collections.abc import Callable, Iterator, Sequence
import hashlib
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu import errors, extras
from jumprelu.data import cache, packing
from jumprelu.files import durable, json_files

PROGRESS = 'progress.json'
SPLITS = ('train', 'held_out')
# Tokens of two shards, one in each cache: 4 MB as uint16, 8 MB as int32.
_TOKENS_PER_SHARD = 2**21


class Encoded(NamedTuple):
  """A document as token ids.

  `text_bytes` is the size of the text in UTF-8, or 0 if the text is unknown.
  """

  held_out: bool
  tokens: Sequence[int]
  text_bytes: int


class _SplitWriter:
  """A writer of one of the two caches, which packs documents into shards."""

  def __init__(
      self,
      directory: pathlib.Path,
      length: int,
      *,
      dtype: str,
      state: dict,
      wrap: packing.Wrap,
  ):
    self._directory = directory
    self._dtype = np.dtype(dtype)
    self._packer = packing.Packer(length, state['open_row'], wrap=wrap)
    self._counts = dict(state['counts'])
    self._shards = list(state['shards'])
    self._rows = []
    directory.mkdir(parents=True, exist_ok=True)

  @staticmethod
  def empty_state() -> dict[str, Any]:
    """Returns the state of a writer before its first document."""
    counts = {'documents': 0, 'tokens': 0, 'text_bytes': 0}
    return {'open_row': [], 'counts': counts, 'shards': []}

  @property
  def waiting(self) -> int:
    """The number of rows that are not in a shard yet."""
    return len(self._rows)

  def add(self, document: Encoded) -> None:
    self._rows.extend(self._packer.add(document.tokens))
    self._counts['documents'] += 1
    self._counts['tokens'] += len(document.tokens)
    self._counts['text_bytes'] += document.text_bytes

  def close_shard(self) -> dict[str, Any]:
    """Writes the waiting rows, if any, as a shard; returns the new state."""
    with extras.imports():
      from array_record.python import array_record_module

    if self._rows:
      name = f'tokens-{len(self._shards):05d}.array_record'
      path = self._directory / name
      writer = array_record_module.ArrayRecordWriter(
          str(path), 'group_size:1,uncompressed'
      )
      digest = hashlib.sha256()
      for row in self._rows:
        digest.update(row.astype('<i4').tobytes())
        writer.write(row.astype(self._dtype).tobytes())
      writer.close()
      durable.sync(path)  # Before the progress that lists it.
      self._shards.append(
          {
              'file': name,
              'records': len(self._rows),
              'bytes': path.stat().st_size,
              'sha256': digest.hexdigest(),
          }
      )
      self._rows = []
    return {
        'open_row': [int(t) for t in self._packer.open_row],
        'counts': dict(self._counts),
        'shards': list(self._shards),
    }

  def finish(self, record: dict[str, Any]) -> None:
    """Writes the last row, padded, then the manifest with `record` added."""
    self._rows.extend(self._packer.finish())
    state = self.close_shard()
    digests = ''.join(s['sha256'] for s in state['shards'])
    manifest = {
        'format': cache.FORMAT,
        'complete': True,
        'digest': hashlib.sha256(digests.encode()).hexdigest(),
        'records': sum(s['records'] for s in state['shards']),
        'shards': state['shards'],
        'sequence_length': self._packer.sequence_length,
        'dtype': self._dtype.name,
        **state['counts'],
        **record,
    }
    json_files.write_json(
        self._directory / cache.MANIFEST,
        manifest,
        indent=1,
        sort_keys=True,
        seal=True,
    )


def _read_progress(path: pathlib.Path) -> dict[str, Any]:
  """Returns the progress of an interrupted call.

  If the file is missing or damaged, the progress is that of a new call.
  """
  try:
    return json_files.read_json(path, sealed=True)
  except (errors.MissingInputError, errors.DataError):
    states = {s: _SplitWriter.empty_state() for s in SPLITS}
    return {'documents': 0, **states}


def write_caches(
    directory: pathlib.Path,
    read: Callable[[int], Iterator[Encoded]],
    *,
    sequence_length: int,
    vocab_size: int,
    record: dict[str, Any],
    max_tokens: int = 0,
    rows_per_shard: int = 0,
    wrap: packing.Wrap = packing.PLAIN,
    late: Callable[[], dict[str, Any]] = dict,
) -> None:
  """Writes the caches `directory`/train and `directory`/held_out.

  An interrupted call is resumed by the next one.

  Args:
    directory: The parent of both caches.
    read: `read(n)` yields all documents except the first n.
    sequence_length: Tokens per row.
    vocab_size: The size of the vocabulary. It decides whether ids are stored as
      uint16 or int32.
    record: Fields that are added to both manifests.
    max_tokens: Reading stops after the document with which the total reaches
      this many tokens; 0 reads all.
    rows_per_shard: Both caches close a shard when they have this many new rows
      together; 0 for `_TOKENS_PER_SHARD` tokens.
    wrap: The tokens around each piece of a document.
    late: Returns more fields of `record`, after the last document.
  """
  rows_per_shard = rows_per_shard or -(-_TOKENS_PER_SHARD // sequence_length)
  progress_path = directory / PROGRESS
  progress = _read_progress(progress_path)
  writers = {
      split: _SplitWriter(
          directory / split,
          sequence_length,
          dtype='uint16' if vocab_size <= 2**16 else 'int32',
          state=progress[split],
          wrap=wrap,
      )
      for split in SPLITS
  }
  documents = progress['documents']
  tokens = sum(progress[s]['counts']['tokens'] for s in SPLITS)
  for document in read(documents):
    if max_tokens and tokens >= max_tokens:
      break
    writers['held_out' if document.held_out else 'train'].add(document)
    documents += 1
    tokens += len(document.tokens)
    if sum(w.waiting for w in writers.values()) >= rows_per_shard:
      states = {s: w.close_shard() for s, w in writers.items()}
      state = {'documents': documents, **states}
      json_files.write_json(
          progress_path, state, indent=1, sort_keys=True, seal=True
      )
  for split, writer in writers.items():
    writer.finish({'split': split, **record, **late()})
  progress_path.unlink(missing_ok=True)
