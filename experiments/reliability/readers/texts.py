"""Readers of text, and of tokens in caches and files."""

import functools
import gzip
import json
import pathlib
from typing import Any

import numpy as np

from experiments.reliability import archives, mutations
from experiments.reliability.readers import base
from jumprelu import errors
from jumprelu.data import (
    cache_writer,
    corpus,
    documents,
    text_files,
    token_files,
)

_WORDS = ('ant', 'bee', 'grün', '\U0001f600', 'cow\n', '"dog"', 'emu,', '')
_ROWS = [
    {'text': ' '.join(_WORDS[: 2 + i % 6]) + f' {i}', 'id': i}
    for i in range(12)
]
_BYTES = (mutations.of_bytes,)
_LINES = (mutations.of_lines, mutations.of_lines, mutations.of_bytes)
_ROWS_OF_TOKENS = 8


def readers() -> list[base.Reader]:
  """Returns the readers of this file."""
  text = (mutations.of_text, mutations.of_bytes)
  values = base.Protection.VALUES
  return [
      _of_text('jsonl', _jsonl, _LINES),
      _of_text('jsonl_skipping', _jsonl, _LINES, share=0.5),
      _of_text('json', _json, (mutations.of_json,)),
      _of_text('csv', _csv, text),
      _of_text('plain', _plain, text),
      _of_text('parquet', _parquet, _BYTES),
      _of_text('parquet_skipping', _parquet, _BYTES, share=0.5),
      _of_text('arrow', _arrow, _BYTES),
      _of_text('gzip', _gzip, (archives.of_gzip, mutations.of_bytes)),
      _of_text('zstd', _zstd, _BYTES),
      base.Reader(
          'token_files', _token_files, _read_token_files,
          {'*.array_record': _BYTES},
      ),
      base.Reader(
          'token_cache', _cache, _read_cache,
          {'*/manifest.json': (mutations.of_json,), '*/*.array_record': _BYTES},
          protection=values, unprotected=('*/manifest.json',),
      ),
      base.Reader(
          'token_cache_progress', _progress, _read_progress,
          {'progress.json': (mutations.of_json,)}, protection=values,
      ),
  ]  # fmt: skip


def _of_text(name, make, changes, *, share=0.0) -> base.Reader:
  read = functools.partial(_read_text, share=share)
  return base.Reader(f'text_{name}', make, read, {'*': changes})


def _read_text(folder: pathlib.Path, *, share: float) -> Any:
  files = text_files.TextFiles(
      [str(folder)], text_field='text', max_bad_rows=share
  )
  files.describe()
  files.summary()
  result = list(files.documents())
  for document in result:
    document.text.encode()  # No reader may return half a character.
    files.split_key(document)
  return result


def _jsonl(folder: pathlib.Path) -> None:
  lines = [json.dumps(row) + '\n' for row in _ROWS]
  (folder / 'rows.jsonl').write_text(''.join(lines))


def _json(folder: pathlib.Path) -> None:
  (folder / 'rows.json').write_text(json.dumps(_ROWS))


def _csv(folder: pathlib.Path) -> None:
  lines = [f'{i},"text {i}, with ""quotes"""\n' for i in range(12)]
  (folder / 'rows.csv').write_text('id,text\n' + ''.join(lines))


def _plain(folder: pathlib.Path) -> None:
  for name in ('a.txt', 'b.md', 'c.py'):
    (folder / name).write_text('\n\n'.join(row['text'] for row in _ROWS))


def _table() -> Any:
  import pyarrow

  return pyarrow.Table.from_pylist(_ROWS)


def _parquet(folder: pathlib.Path) -> None:
  from pyarrow import parquet

  parquet.write_table(_table(), folder / 'rows.parquet', row_group_size=5)


def _arrow(folder: pathlib.Path) -> None:
  import pyarrow

  table = _table()
  with pyarrow.OSFile(str(folder / 'a.arrow'), 'wb') as file:
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
      writer.write_table(table, max_chunksize=5)
  with pyarrow.OSFile(str(folder / 'b.arrow'), 'wb') as file:
    with pyarrow.ipc.new_file(file, table.schema) as writer:
      writer.write_table(table, max_chunksize=5)


def _gzip(folder: pathlib.Path) -> None:
  _jsonl(folder)
  path = folder / 'rows.jsonl'
  path.with_suffix('.jsonl.gz').write_bytes(gzip.compress(path.read_bytes()))
  path.unlink()


def _zstd(folder: pathlib.Path) -> None:
  import pyarrow

  _jsonl(folder)
  path = folder / 'rows.jsonl'
  with pyarrow.output_stream(f'{path}.zst', compression='zstd') as file:
    file.write(path.read_bytes())
  path.unlink()


def _token_files(folder: pathlib.Path) -> None:
  from array_record.python import array_record_module

  for number in range(1):
    writer = array_record_module.ArrayRecordWriter(
        str(folder / f'part{number}.array_record'), 'group_size:1'
    )
    for row in range(4):
      writer.write(np.arange(5, 12 + row, dtype='<i4').tobytes())
    writer.close()


def _read_token_files(folder: pathlib.Path) -> Any:
  files = token_files.TokenFiles(folder, vocab_size=64)
  files.notice()
  encoded = list(files.encoded(documents.Split(10), 0))
  for document in encoded:
    if document.tokens and not 0 <= max(document.tokens) < 64:
      raise base.Wrong(f'token {max(document.tokens)}')
  return encoded, files.describe()


def _encoded(skip: int):
  for i in range(skip, 24):
    yield cache_writer.Encoded(i % 3 == 0, list(range(5, 15)), 20)


def _write(folder: pathlib.Path) -> None:
  described = {
      'source': {'kind': 'files', 'name': 'a'},
      'tokenizer_sha256': '0' * 64,
      'held_out_percent': 10,
      'max_tokens': 0,
  }
  cache_writer.write_caches(
      folder,
      _encoded,
      sequence_length=_ROWS_OF_TOKENS,
      vocab_size=64,
      record=described,
      rows_per_shard=100,
  )


def _cache(folder: pathlib.Path) -> None:
  _write(folder)


def _read_cache(folder: pathlib.Path) -> Any:
  prepared = corpus.open_prepared(folder)
  rows = [
      cache.tokens_at(range(len(cache)))
      for cache in (prepared.train, prepared.held_out)
  ]
  prefixes = [prepared.train.user_prefix, prepared.held_out.user_prefix]
  return rows, prefixes, dict(prepared.description)


def _progress(folder: pathlib.Path) -> None:
  """Writes the progress of a writer that was stopped."""

  def stopped(skip):
    for number, document in enumerate(_encoded(skip)):
      if number == 18:
        raise InterruptedError
      yield document

  try:
    cache_writer.write_caches(
        folder, stopped, sequence_length=_ROWS_OF_TOKENS, vocab_size=64,
        record={}, rows_per_shard=8,
    )  # fmt: skip
  except InterruptedError:
    pass


def _read_progress(folder: pathlib.Path) -> Any:
  progress = cache_writer._read_progress(folder / cache_writer.PROGRESS)
  if not progress['documents']:
    raise errors.DataError('the writer starts again')
  return progress
