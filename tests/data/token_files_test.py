"""Documents that are already tokenised are read from ArrayRecord files."""

import hashlib

from array_record.python import array_record_module
import numpy as np
import pytest

from jumprelu import data
from jumprelu.errors import DataError, MissingInputError

DOCUMENTS = [list(range(4 + i, 4 + i + 5 + i % 7)) for i in range(40)]


def _write(path, documents, dtype='<i4'):
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
  for ids in documents:
    writer.write(np.asarray(ids, dtype).tobytes())
  writer.close()


def _tokens(cache):
  rows = cache.tokens_at(range(len(cache)))
  return rows[rows > 2].tolist()


def test_documents_are_packed_and_split_by_their_tokens(
    tokenizer, config, tmp_path
):
  _write(tmp_path / 'b.array_record', DOCUMENTS[25:])
  _write(tmp_path / 'a.array_record', DOCUMENTS[:25])
  prepared = data.prepare(f'tokens:{tmp_path}', tokenizer, config)
  held_out, train = [], []
  for ids in DOCUMENTS:
    digest = hashlib.sha256(np.asarray(ids, '<i4').tobytes()).hexdigest()
    fraction = int(hashlib.sha256(digest.encode()).hexdigest(), 16) / 2**256
    (held_out if fraction < 0.3 else train).extend(ids)
  assert train and held_out
  assert _tokens(prepared.train) == train
  assert _tokens(prepared.held_out) == held_out


def test_bos_and_eos_around_a_document_are_removed(tokenizer, config, tmp_path):
  for place, documents in (
      ('plain', DOCUMENTS),
      ('framed', [[2, *ids, 1] for ids in DOCUMENTS]),
  ):
    (tmp_path / place).mkdir()
    _write(tmp_path / place / 'a.array_record', documents)
  plain, framed = (
      data.prepare(f'tokens:{tmp_path / place}', tokenizer, config)
      for place in ('plain', 'framed')
  )
  assert plain.train.digest == framed.train.digest
  assert plain.held_out.digest == framed.held_out.digest


@pytest.mark.parametrize('bad', [420, -1, 0, 1, 2])
def test_an_invalid_id_is_named_with_its_record(
    bad, tokenizer, config, tmp_path
):
  _write(tmp_path / 'a.array_record', [[5, 6], [7, bad, 9]])
  with pytest.raises(DataError, match=f'record 1: token id {bad} '):
    data.prepare(f'tokens:{tmp_path}', tokenizer, config)


def test_records_of_odd_length_are_not_token_ids(tokenizer, config, tmp_path):
  _write(tmp_path / 'a.array_record', [[5, 6, 7]], dtype='<i2')
  with pytest.raises(DataError, match='record 0: 6 bytes'):
    data.prepare(f'tokens:{tmp_path}', tokenizer, config)


def test_a_truncated_file_is_named(tokenizer, config, tmp_path):
  path = tmp_path / 'a.array_record'
  _write(path, DOCUMENTS)
  path.write_bytes(path.read_bytes()[:-200])
  with pytest.raises(DataError, match='a.array_record'):
    data.prepare(f'tokens:{tmp_path}', tokenizer, config)


@pytest.mark.parametrize('name', ['', 'nowhere'])
def test_a_directory_without_tokens_is_missing_input(
    name, tokenizer, config, tmp_path
):
  with pytest.raises(MissingInputError, match='neither a folder|no such file'):
    data.prepare(f'tokens:{tmp_path / name}', tokenizer, config)


def test_shards_are_read_under_their_usual_names(tokenizer, config, tmp_path):
  names = ('a.array_record-00000-of-00002', 'a.array_record-00001-of-00002')
  _write(tmp_path / names[0], DOCUMENTS[:25])
  _write(tmp_path / names[1], DOCUMENTS[25:])
  prepared = data.prepare(f'tokens:{tmp_path}', tokenizer, config)
  counts = prepared.description
  assert counts['source']['files'] == 2
  assert counts['train']['documents'] + counts['held_out']['documents'] == 40


def test_files_beside_token_files_and_missing_shards_are_named(
    tokenizer, config, tmp_path
):
  _write(tmp_path / 'a.array_record', DOCUMENTS[:25])
  _write(tmp_path / 'b.array_record-00001-of-00003', DOCUMENTS[25:])
  (tmp_path / 'c.array_record.partial').write_bytes(b'unfinished')
  lines = []
  prepared = data.prepare(
      f'tokens:{tmp_path}', tokenizer, config, on_phase=lines.append
  )
  assert prepared.description['source']['files'] == 2
  assert (
      f'{tmp_path.name}: b.array_record has 1 of 3 shards; 1 left out:'
      ' c.array_record.partial (no ArrayRecord file)'
  ) in lines


def test_a_single_token_file_is_read(tokenizer, config, tmp_path):
  _write(tmp_path / 'a.array_record', DOCUMENTS[:25])
  _write(tmp_path / 'b.array_record', DOCUMENTS[25:])
  prepared = data.prepare(
      f'tokens:{tmp_path / "a.array_record"}', tokenizer, config
  )
  assert prepared.description['source']['files'] == 1
