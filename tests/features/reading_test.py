"""Tests of reading a folder of features."""

import shutil

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
