"""Documents are read from the user's files; each bad file has a clear error."""

import contextlib
import json
import types

import pyarrow
from pyarrow import parquet
import pytest

from jumprelu.data import row_files, text_files
from jumprelu.data.text_files import TextFiles
from jumprelu.errors import DataError, MissingInputError, UserError


def _read(*paths, text_field='text'):
  source = TextFiles([str(p) for p in paths], text_field=text_field)
  return [tuple(d) for d in source.documents()]


def _fault(error, *paths, text_field='text'):
  with pytest.raises(error) as caught:
    _read(*paths, text_field=text_field)
  message = str(caught.value)
  assert '\n' not in message
  return message


def test_a_directory_gives_its_files_in_order(fixtures, texts):
  assert _read(fixtures / 'corpus') == sorted(texts.items())


def test_hidden_and_unknown_files_are_skipped(tmp_path):
  (tmp_path / '.git').mkdir()
  (tmp_path / '.git' / 'a.txt').write_text('hidden')
  (tmp_path / 'picture.png').write_bytes(b'\x89PNG')
  (tmp_path / 'a.txt').write_text('seen')
  assert _read(tmp_path) == [(f'{tmp_path.name}/a.txt', 'seen')]


def test_files_are_read_in_the_order_of_the_list(tmp_path):
  (tmp_path / 'b.txt').write_text('first')
  (tmp_path / 'a.md').write_text('second')
  names = [n for n, _ in _read(tmp_path / 'b.txt', tmp_path / 'a.md')]
  assert names == ['b.txt', 'a.md']


def test_a_line_of_jsonl_is_a_document(fixtures):
  path = fixtures / 'letters.jsonl'
  lines = [json.loads(s)['text'] for s in path.read_text().splitlines()]
  expected = [(f'letters.jsonl:{i}', t) for i, t in enumerate(lines, start=1)]
  assert _read(path) == expected
  assert _read(path, text_field='to')[3] == ('letters.jsonl:4', 'mender')


def test_a_row_of_parquet_is_a_document(tmp_path):
  rows = [f'row {i}' for i in range(2500)]
  table = pyarrow.table({'n': list(range(2500)), 'body': rows})
  parquet.write_table(table, tmp_path / 'rows.parquet')
  documents = _read(tmp_path / 'rows.parquet', text_field='body')
  assert documents == [(f'rows.parquet:{i}', t) for i, t in enumerate(rows)]


def test_a_byte_order_mark_is_not_text(tmp_path):
  (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfText')
  assert _read(tmp_path / 'a.txt') == [('a.txt', 'Text')]


def test_a_long_text_is_split_between_paragraphs_and_loses_nothing(tmp_path):
  text = ''.join(f'Paragraph {i}. {"word " * 90}\n\n' for i in range(300))
  (tmp_path / 'book.txt').write_text(text)
  parts = _read(tmp_path / 'book.txt')
  assert parts[1][0] == 'book.txt#1'
  assert ''.join(t for _, t in parts) == text
  assert all(t.endswith('\n\n') for _, t in parts)
  assert all(16_384 <= len(t) <= 32_768 for _, t in parts[:-1])


@pytest.mark.parametrize('mark', ['\n', ' ', ''])
def test_a_long_text_without_paragraphs_is_split_too(mark):
  text = ('x' * 50 + mark) * 3000
  parts = text_files.split_text(text)
  assert ''.join(parts) == text
  assert all(p.endswith(mark) for p in parts)
  assert max(map(len, parts)) <= 32_768


def test_code_is_not_split(tmp_path):
  (tmp_path / 'long.py').write_text('x = 1\n\n' * 20_000)
  assert len(_read(tmp_path / 'long.py')) == 1


def test_a_missing_path_is_missing_input():
  message = _fault(MissingInputError, 'no/such/corpus')
  assert 'no/such/corpus' in message and 'stdlib' in message


def test_a_directory_without_text_is_missing_input(tmp_path):
  assert str(tmp_path) in _fault(MissingInputError, tmp_path)


def test_an_unknown_kind_of_file_is_named(tmp_path):
  (tmp_path / 'a.docx').write_text('text')
  message = _fault(UserError, tmp_path / 'a.docx')
  assert 'a.docx' in message and '.jsonl' in message


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl', 'a.md'])
def test_an_empty_file_is_named(tmp_path, name):
  (tmp_path / name).write_text('')
  assert f'{tmp_path / name}: empty file' in _fault(UserError, tmp_path / name)


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl'])
def test_a_file_of_white_space_is_named(tmp_path, name):
  (tmp_path / name).write_text(' \n\n\t')
  assert f'{tmp_path / name}: no text' in _fault(UserError, tmp_path / name)


def test_bad_utf8_is_named_with_its_byte_before_any_document(tmp_path):
  (tmp_path / 'a.txt').write_text('good')
  (tmp_path / 'b.txt').write_bytes('Größe'.encode('latin-1'))
  source = TextFiles([str(tmp_path)], text_field='text')
  with pytest.raises(UserError) as caught:
    source.describe()
  assert f'{tmp_path / "b.txt"}: not UTF-8 (byte 2 is 0xf6)' in str(
      caught.value
  )
  assert caught.value.exit_code == 2


def test_bad_lines_of_jsonl_are_named_with_their_number(tmp_path):
  path = tmp_path / 'a.jsonl'
  good = b'{"text": "good"}\n'
  for bad, words in (
      (b'{"text": "half', 'not JSON'),
      (b'["text"]', 'not a JSON object'),
      (b'{"body": "other"}', "no field 'text' among ['body']"),
      (b'{"text": 7}', "field 'text' is int"),
      (b'{"text": null}', "field 'text' is NoneType"),
      (b'{"text": "\xff"}', 'not UTF-8'),
  ):
    path.write_bytes(good + b'\n' + bad + b'\n' + good)
    message = _fault(UserError, path)
    assert f'{path}:3: ' in message and words in message


def test_a_parquet_file_without_the_field_lists_its_fields(tmp_path):
  table = pyarrow.table({'body': ['a'], 'n': [1]})
  parquet.write_table(table, tmp_path / 'a.parquet')
  message = _fault(UserError, tmp_path / 'a.parquet')
  assert "no field 'text' among ['body', 'n']" in message
  assert 'text_field' in message


def test_a_null_in_parquet_is_named_with_its_row(tmp_path):
  table = pyarrow.table({'text': ['a', 'b', None]})
  parquet.write_table(table, tmp_path / 'a.parquet')
  assert 'a.parquet: row 2' in _fault(UserError, tmp_path / 'a.parquet')


@pytest.mark.parametrize(
    'text', ['"text"x,n\nwords,1\n', 'text,n\n"words"x,1\n']
)
def test_a_damaged_line_of_csv_is_damaged_data(tmp_path, text):
  (tmp_path / 'a.csv').write_text(text)
  assert 'a.csv: row 0: not CSV' in _fault(DataError, tmp_path / 'a.csv')


def test_a_damaged_parquet_file_is_damaged_data(tmp_path):
  (tmp_path / 'a.parquet').write_bytes(b'PAR1 nothing more')
  assert 'a.parquet' in _fault(DataError, tmp_path / 'a.parquet')


def test_the_digest_depends_on_names_and_contents_not_on_the_parent(tmp_path):
  digests = []
  for parent, name, text in (
      ('first', 'a.txt', 'text'),
      ('second', 'a.txt', 'text'),
      ('first', 'b.txt', 'text'),
      ('second', 'a.txt', 'Text'),
  ):
    root = tmp_path / parent / 'corpus'
    root.mkdir(parents=True, exist_ok=True)
    for old in root.iterdir():
      old.unlink()
    (root / name).write_text(text)
    source = TextFiles([str(root)], text_field='text')
    digests.append(source.describe()['digest'])
  assert digests[0] == digests[1]
  assert len(set(digests)) == 3


def test_copies_have_the_same_key_despite_surrounding_white_space(tmp_path):
  (tmp_path / 'a.txt').write_text('One text.')
  (tmp_path / 'b.txt').write_text('\nOne text.\n\n')
  (tmp_path / 'c.txt').write_text('Another text.')
  source = TextFiles([str(tmp_path)], text_field='text')
  a, b, c = (source.split_key(d) for d in source.documents())
  assert a == b != c


@pytest.mark.parametrize('kind', ['stream', 'file'])
def test_a_damaged_arrow_file_is_an_error_and_no_crash(tmp_path, kind):
  table = pyarrow.table({'text': [f'text {i}' * (i % 5) for i in range(12)]})
  path = tmp_path / 'a.arrow'
  new = {'stream': pyarrow.ipc.new_stream, 'file': pyarrow.ipc.new_file}[kind]
  with pyarrow.OSFile(str(path), 'wb') as file, new(file, table.schema) as out:
    out.write_table(table, max_chunksize=5)
  data = path.read_bytes()
  refused = 0
  for at in range(0, len(data), 4):
    for value in (2**31 - 1, 2**31, 1000):
      number = value.to_bytes(4, 'little')
      path.write_bytes(data[:at] + number + data[at + 4 :])
      try:
        _read(path)
      except (DataError, UserError) as error:
        refused += 1
        assert '\n' not in str(error)
  assert refused > 100


def test_a_small_file_is_read_in_small_parts(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_text('text')
  sizes = []
  opened = row_files.opened

  @contextlib.contextmanager
  def counting(path):
    with opened(path) as file:
      read = file.read
      yield types.SimpleNamespace(read=lambda n: sizes.append(n) or read(n))

  monkeypatch.setattr(row_files, 'opened', counting)
  assert _read(tmp_path / 'a.txt') == [('a.txt', 'text')]
  assert sizes and max(sizes) <= 2**24
