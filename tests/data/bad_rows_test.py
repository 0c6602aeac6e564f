"""Rows that cannot be read are errors, or skipped up to a share and counted."""

import dataclasses
import json

import pyarrow
from pyarrow import parquet
import pytest

from jumprelu import data
from jumprelu.data.text_files import TextFiles
from jumprelu.errors import DataError, UserError

GOOD = [f'Sentence number {i} of the corpus.' for i in range(60)]
BAD = {
    'null': b'{"text": null}',
    'type': b'{"text": 7}',
    'field': b'{"body": "x"}',
    'list': b'["text"]',
    'unfinished': b'{"text": "half',
    'bytes': b'{"text": "\xff"}',
    'surrogate': b'{"text": "half \\ud83d"}',
    'digits': b'{"n": ' + b'1' * 5000 + b'}',
    'deep': b'[' * 100_000,
}


def _write(path, *bad):
  lines = [json.dumps({'text': text}).encode() for text in GOOD]
  path.write_bytes(b'\n'.join([*lines[:30], *bad, *lines[30:], b'']))


def _texts(path, share):
  source = TextFiles([str(path)], text_field='text', max_bad_rows=share)
  return [d.text for d in source.documents()]


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_row_is_an_error_that_names_it_and_the_flag(tmp_path, kind):
  path = tmp_path / 'a.jsonl'
  _write(path, BAD[kind])
  with pytest.raises(UserError) as caught:
    _texts(path, 0.0)
  message = str(caught.value)
  assert message.startswith(f'{path}:31: ')
  assert '--corpus.max_bad_rows' in message and '\n' not in message


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_row_is_skipped_up_to_a_share(tmp_path, kind):
  path = tmp_path / 'a.jsonl'
  _write(path, BAD[kind])
  assert _texts(path, 0.02) == GOOD
  _write(path, BAD[kind], BAD[kind])
  with pytest.raises(DataError, match='a.jsonl: 2 of 62 rows cannot be read'):
    _texts(path, 0.02)


def test_nulls_and_damaged_groups_of_parquet_are_bad_rows(tmp_path):
  texts = [*GOOD[:30], None, *GOOD[30:]]
  path = tmp_path / 'a.parquet'
  parquet.write_table(
      pyarrow.table({'text': texts}),
      path,
      row_group_size=20,
      use_dictionary=False,
      compression='snappy',
  )
  assert _texts(path, 0.02) == GOOD
  with pytest.raises(UserError, match="row 30: field 'text' is NoneType"):
    _texts(path, 0.0)
  column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
  raw = bytearray(path.read_bytes())
  start = column.data_page_offset + 40
  raw[start : start + 60] = b'\xff' * 60
  path.write_bytes(raw)
  with pytest.raises(DataError, match='rows 20 to 39 are damaged'):
    _texts(path, 0.0)
  assert _texts(path, 0.5) == [*GOOD[:20], *GOOD[39:]]


def test_skipped_rows_are_counted_in_the_record_and_announced(
    tokenizer, config, tmp_path
):
  path = tmp_path / 'a.jsonl'
  _write(path, BAD['null'])
  with pytest.raises(UserError, match='max_bad_rows'):
    data.prepare(str(path), tokenizer, config)
  lines = []
  allowed = dataclasses.replace(config, max_bad_rows=0.05)
  prepared = data.prepare(str(path), tokenizer, allowed, on_phase=lines.append)
  assert prepared.description['skipped_rows'] == 1
  assert any('a.jsonl: 1 of 61 rows skipped' in line for line in lines)
  # The caches of a lenient reading are not those of a strict one.
  with pytest.raises(UserError, match='max_bad_rows'):
    data.prepare(str(path), tokenizer, config)


def test_the_share_holds_for_a_file_that_is_not_read_to_its_end(
    tokenizer, config, tmp_path
):
  path = tmp_path / 'a.jsonl'
  good = [
      json.dumps({'text': f'{t} {n}'}).encode() for n in 'abcd' for t in GOOD
  ]
  path.write_bytes(b'\n'.join([*good[:9], *[BAD['null']] * 20, *good[9:], b'']))
  early = dataclasses.replace(config, max_bad_rows=0.3, max_tokens=500)
  lines = []
  prepared = data.prepare(str(path), tokenizer, early, on_phase=lines.append)
  assert prepared.description['skipped_rows'] == 20
  assert any('20 of 84 rows skipped' in line for line in lines)
  # 20 of 260 rows are bad, but 20 of the 84 that were read.
  strict = dataclasses.replace(early, max_bad_rows=0.2)
  with pytest.raises(DataError, match='20 of 84 rows cannot be read'):
    data.prepare(str(path), tokenizer, strict)


@pytest.mark.parametrize('share', [-0.1, 1.0])
def test_the_share_is_below_one(share):
  with pytest.raises(UserError, match='max_bad_rows must be 0 to below 1'):
    data.Config(max_bad_rows=share)
