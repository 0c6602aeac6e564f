"""Tests of reading a folder of features."""

import json
import shutil

from pyarrow import parquet
import pytest

from jumprelu import errors
from jumprelu.features import reading

MEMBER = 'transcoder/layer_2/width_32/average_l0_4'


def test_rows_of_some_latents_and_columns_are_read(folder, tables):
  rows = reading.read_latents(
      folder, MEMBER, latents=[3, 7], columns=['latent', 'count']
  )
  expected = [tables[MEMBER][i] for i in (3, 7)]
  assert rows == [{k: r[k] for k in ('latent', 'count')} for r in expected]
  assert reading.read_latents(folder, MEMBER) == tables[MEMBER]


def test_rows_of_several_row_groups_are_read_in_order(folder, tables, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  path = copy / 'members' / f'{MEMBER}.parquet'
  parquet.write_table(parquet.read_table(path), path, row_group_size=5)
  rows = reading.read_latents(copy, MEMBER, latents=[31, 7, 30, 4, 5, 7])
  assert rows == [tables[MEMBER][i] for i in (4, 5, 7, 30, 31)]
  assert reading.read_latents(copy, MEMBER, latents=[]) == []
  parquet.write_table(parquet.read_table(path)[:30], path, row_group_size=7)
  with pytest.raises(errors.DataError, match=r'parquet: damaged \(30 rows'):
    reading.read_latents(copy, MEMBER, latents=[29, 30])


# The changed byte is the repetition of the first column.
def test_an_undefined_repetition_is_damage_and_no_deadlock(folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  path = copy / 'members' / f'{MEMBER}.parquet'
  data = bytearray(path.read_bytes())
  at = data.index(b'\x25\x02\x18\x06latent', -len(data)) + 1
  data[at] = 0x22
  path.write_bytes(data)
  with pytest.raises(errors.DataError, match='parquet: damaged'):
    reading.read_latents(copy, MEMBER, latents=[3])


def test_columns_are_read_as_tables(folder, tables):
  table = reading.read_table(folder, MEMBER, columns=['count', 'examples'])
  assert table.column_names == ['count', 'examples']
  assert table['count'].to_pylist() == [r['count'] for r in tables[MEMBER]]
  vocabulary = reading.read_vocabulary(folder)
  assert vocabulary['token'].to_pylist() == list(range(len(vocabulary)))


def test_unknown_members_and_latents_are_refused(folder):
  with pytest.raises(errors.UserError, match="no member 'x'; members: "):
    reading.read_latents(folder, 'x')
  with pytest.raises(errors.UserError, match="no member 'x'; members: "):
    reading.read_table(folder, 'x')
  with pytest.raises(errors.UserError, match='latent 32: .* latents 0 to 31'):
    reading.read_latents(folder, MEMBER, latents=[1, 32])


def test_missing_files_are_named(folder, tmp_path):
  with pytest.raises(errors.MissingInputError, match='jumprelu features'):
    reading.read_manifest(tmp_path)
  copy = shutil.copytree(folder, tmp_path / 'copy')
  (copy / 'members' / f'{MEMBER}.parquet').unlink()
  with pytest.raises(errors.MissingInputError, match='collect it again'):
    reading.read_latents(copy, MEMBER)
  (copy / 'manifest.json').write_text('{"format": 99, "writer": "9.9"}')
  with pytest.raises(errors.DataError, match='install jumprelu >= 9.9'):
    reading.read_manifest(copy)


@pytest.mark.parametrize(
    'change, fault',
    [
        (lambda m: m.update(members=3), 'members is not a list'),
        (lambda m: m.update(members=['a']), 'a member is not an object'),
        (lambda m: m['members'][0].pop('path'), 'path of a member'),
        (lambda m: m['members'][0].update(width='32'), 'the width of a member'),
        (lambda m: m['members'][0].update(file='../a'), 'a file is not'),
        (lambda m: m.update(vocabulary=['a']), 'a file is not'),
        (lambda m: m.update(texts='/etc/a'), 'a file is not'),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(
    folder, tmp_path, change, fault
):
  manifest = json.loads((folder / 'manifest.json').read_text())
  # As in a folder of an earlier version.
  del manifest['sha256_of_fields']
  change(manifest)
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  with pytest.raises(errors.DataError, match=f'manifest.json: {fault}'):
    reading.read_manifest(tmp_path)


def test_a_set_of_explanations_without_the_mark_is_incomplete(tmp_path):
  path = tmp_path / 'explanations' / 'rules'
  path.mkdir(parents=True)
  (path / 'manifest.json').write_text('{"format": 1}')
  assert reading.read_explanation_sets(tmp_path) == {}


@pytest.mark.parametrize(
    'file, column, read',
    [
        ('vocabulary.parquet', 'piece', reading.read_vocabulary),
        ('texts.parquet', 'tokens', reading.read_texts),
        (
            f'members/{MEMBER}.texts.parquet',
            'latents',
            lambda folder: reading.read_text_firings(folder, MEMBER),
        ),
    ],
)
def test_a_table_without_a_column_is_named(
    folder, tmp_path, file, column, read
):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  path = copy / file
  parquet.write_table(parquet.read_table(path).drop_columns([column]), path)
  with pytest.raises(errors.DataError, match=f'has no column {column}'):
    read(copy)
