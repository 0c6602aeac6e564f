"""Each file of a folder of text is read, or named as left out."""

import gzip
import json
import os
import shutil

import pyarrow
from pyarrow import parquet
import pytest

from jumprelu import data
from jumprelu.data import file_list, sources
from jumprelu.data.text_files import TextFiles
from jumprelu.errors import DataError, MissingInputError, UserError


def _lines(count, word='row'):
  return ''.join(
      json.dumps({'text': f'{word} {i}'}) + '\n' for i in range(count)
  )


def _source(*paths):
  return TextFiles([str(p) for p in paths], text_field='text')


def _texts(*paths):
  return [d.text for d in _source(*paths).documents()]


def _write_parquet(path, texts):
  path.parent.mkdir(parents=True, exist_ok=True)
  parquet.write_table(pyarrow.table({'text': texts}), path)


def test_compressed_lines_are_read_beside_others(tmp_path):
  (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(_lines(40).encode()))
  with pyarrow.output_stream(
      str(tmp_path / 'b.ndjson.zst'), compression='zstd'
  ) as file:
    file.write(_lines(30).encode())
  (tmp_path / 'c.jsonl').write_text(_lines(10))
  (tmp_path / 'd.txt.gz').write_bytes(gzip.compress(b'A text.'))
  source = _source(tmp_path)
  assert len(list(source.documents())) == 81
  assert source.describe()['files'] == 4 and not source.left_out
  assert source.size() == 0  # The size of the text is unknown.


@pytest.mark.parametrize('name', ['a.jsonl.gz', 'a.txt.gz', 'a.jsonl.zst'])
@pytest.mark.parametrize('damage', ['truncated', 'other'])
def test_a_damaged_compressed_file_is_damaged_data(tmp_path, name, damage):
  path = tmp_path / name
  compression = 'gzip' if name.endswith('gz') else 'zstd'
  with pyarrow.output_stream(str(path), compression=compression) as file:
    file.write(_lines(400).encode())
  raw = path.read_bytes()
  path.write_bytes(raw[:-20] if damage == 'truncated' else b'plain ' * 9)
  with pytest.raises(DataError, match=f'{name}: damaged or truncated'):
    _texts(path)


@pytest.mark.parametrize('ending', ['json', 'csv', 'arrow', 'ndjson', 'lines'])
def test_other_formats_of_rows(tmp_path, ending):
  texts = ['one', 'two, with a comma', 'three\nlines', '']
  table = pyarrow.table({'n': [0, 1, 2, 3], 'text': texts})
  path = tmp_path / f'rows.{ending}'
  if ending == 'json':
    path.write_text(json.dumps([{'text': t} for t in texts]))
  elif ending == 'csv':
    path.write_text('n,text\n0,one\n1,"two, with a comma"\n2,"three\nlines"\n')
  elif ending == 'arrow':
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
      writer.write_table(table)
  else:
    path = tmp_path / ('rows.ndjson' if ending == 'ndjson' else 'rows.json')
    path.write_text(''.join(json.dumps({'text': t}) + '\n' for t in texts))
  assert _texts(tmp_path) == texts[:3]
  assert _texts(path) == texts[:3]


def test_settings_in_a_folder_of_text_are_not_text(tmp_path):
  (tmp_path / 'a.py').write_text('x = 1')
  (tmp_path / 'package.json').write_text('{"name": "x"}')
  (tmp_path / 'table.csv').write_text('a,b\n1,2\n')
  source = _source(tmp_path)
  assert [d.text for d in source.documents()] == ['x = 1']
  assert source.left_out == {
      '.json and .csv beside other text': ['package.json', 'table.csv']
  }


def test_descriptions_and_other_splits_of_a_dataset_are_left_out(tmp_path):
  for i in range(2):
    path = tmp_path / 'data' / f'train-0000{i}-of-00002.parquet'
    _write_parquet(path, [f'train {i} {j}' for j in range(20)])
  _write_parquet(tmp_path / 'data' / 'test-00000-of-00001.parquet', ['test'])
  for name in ('README.md', 'LICENSE.txt', 'loader.py'):
    (tmp_path / name).write_text('about the dataset')
  (tmp_path / 'dataset_infos.json').write_text('{}')
  source = _source(tmp_path)
  assert len(list(source.documents())) == 40
  assert source.left_out == {
      'record of the library datasets': ['dataset_infos.json'],
      'description of the dataset': ['LICENSE.txt', 'README.md', 'loader.py'],
      'other split than train': ['data/test-00000-of-00001.parquet'],
  }


def test_a_readme_among_notes_is_text(tmp_path):
  for name in ('README.md', 'notes.md', 'code.py'):
    (tmp_path / name).write_text(f'The text of {name}.')
  (tmp_path / 'rows.jsonl').write_text(_lines(2))
  assert len(_texts(tmp_path)) == 5


def test_a_test_split_alone_is_read(tmp_path):
  _write_parquet(tmp_path / 'test-00000-of-00001.parquet', ['test'])
  assert _texts(tmp_path) == ['test']


def test_left_out_files_are_named_when_a_corpus_is_prepared(
    fixtures, tokenizer, config, tmp_path, capsys
):
  folder = tmp_path / 'corpus'
  shutil.copytree(fixtures / 'corpus', folder)
  for i in range(5):
    (folder / f'{i}.docx').write_text('other')
  expected = (
      'corpus: 5 left out: 0.docx, 1.docx, 2.docx and 2 more (unknown kind)'
  )
  lines = []
  data.prepare(str(folder), tokenizer, config, on_phase=lines.append)
  assert expected in lines
  data.prepare(str(folder), tokenizer, config)
  assert capsys.readouterr().err.strip() == expected


def test_links_are_followed_and_each_file_is_read_once(tmp_path):
  (tmp_path / 'elsewhere').mkdir()
  (tmp_path / 'elsewhere' / 'a.jsonl').write_text(_lines(30, 'linked'))
  folder = tmp_path / 'corpus'
  folder.mkdir()
  (folder / 'b.jsonl').write_text(_lines(10))
  (folder / 'linked').symlink_to(tmp_path / 'elsewhere')
  (folder / 'loop').symlink_to(folder)
  (folder / 'c.jsonl').symlink_to(folder / 'b.jsonl')
  source = _source(folder)
  assert len(list(source.documents())) == 40
  assert source.left_out == {'link to a file that is read': ['c.jsonl']}
  (tmp_path / 'link').symlink_to(tmp_path / 'elsewhere')
  assert len(_texts(tmp_path / 'link')) == 30


def test_a_broken_link_to_text_is_refused(tmp_path):
  (tmp_path / 'a.txt').write_text('A text.')
  (tmp_path / 'b.txt').symlink_to(tmp_path / 'missing.txt')
  with pytest.raises(UserError, match='b.txt: a link to a missing file'):
    _texts(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_text('A text.')
  (tmp_path / 'closed').mkdir()
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith('closed'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(UserError, match='closed: cannot be read .Permission'):
    _texts(tmp_path)


def test_a_file_that_is_named_twice_is_refused(tmp_path):
  (tmp_path / 'a.jsonl').write_text(_lines(3))
  (tmp_path / 'b.jsonl').symlink_to(tmp_path / 'a.jsonl')
  for paths in (
      (tmp_path, tmp_path / 'a.jsonl'),
      (tmp_path / 'a.jsonl', tmp_path / 'b.jsonl'),
  ):
    with pytest.raises(UserError, match='twice'):
      _texts(*paths)


def test_paths_with_commas_spaces_and_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / 'com,ma, and space'
  folder.mkdir()
  (folder / 'a.txt').write_text('one')
  (tmp_path / 'b.txt').write_text('two')
  for spec, expected in (
      (str(folder), ['one']),
      (f'b.txt,{folder}', ['two', 'one']),
      (f'{folder}, b.txt', ['one', 'two']),
      ('~/b.txt', ['two']),
      ('~/com,ma, and space/a.txt,~/b.txt', ['one', 'two']),
  ):
    documents = sources.make_source(spec).documents()
    assert [d.text for d in documents] == expected, spec


@pytest.mark.parametrize('path', ['https://a.b/c.txt', 'gs://a/b', 'hf://a/b'])
def test_remote_text_is_refused_as_such(path):
  with pytest.raises(UserError, match=f'--data={path}: must be a local path'):
    sources.make_source(path)


def test_a_name_of_a_remote_dataset_is_no_file():
  with pytest.raises(MissingInputError, match='nothing is downloaded'):
    sources.make_source('org/name')


def test_a_pointer_of_git_lfs_is_named(tmp_path):
  pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
  for name in ('a.parquet', 'a.jsonl', 'a.txt', 'a.jsonl.gz'):
    (tmp_path / name).write_text(pointer)
    with pytest.raises(DataError, match=f'{name}: a pointer of Git LFS'):
      _texts(tmp_path / name)


def test_a_file_name_need_not_be_utf8(tmp_path):
  path = os.path.join(os.fsencode(tmp_path), b'a\xff.jsonl')
  with open(path, 'w', encoding='utf-8') as file:
    file.write(_lines(3))
  source = _source(tmp_path)
  assert source.describe()['files'] == len(list(source.documents())) // 3 == 1


def test_describe_counts_all_and_shows_three():
  assert file_list.describe({}) == ''
  names = [f'{i}.png' for i in range(1200)]
  assert file_list.describe({'unknown kind': names}) == (
      '1,200 left out: 0.png, 1.png, 2.png and 1,197 more (unknown kind)'
  )
