"""The files are read by pandas, polars and DuckDB, and the docs' SQL runs."""

import pathlib
import re

import numpy as np
import pandas
import pytest

MEMBER = 'resid_post/layer_2/width_64/average_l0_20'
DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'features.md'


def _expected(tables):
  return [
      (row['latent'], token['token'], token['effect'])
      for row in tables[MEMBER]
      for token in row['promoted']
      if row['count'] > 100
  ]


def test_pandas_reads_the_files(folder, tables):
  frame = pandas.read_parquet(folder / 'members' / f'{MEMBER}.parquet')
  assert frame['count'].tolist() == [row['count'] for row in tables[MEMBER]]
  frame = frame[frame['count'] > 100].explode('promoted')
  shown = [
      (latent, token['token'], token['effect'])
      for latent, token in zip(frame['latent'], frame['promoted'], strict=True)
  ]
  assert len(shown) > 20 and shown == _expected(tables)
  firings = pandas.read_parquet(folder / 'members' / f'{MEMBER}.texts.parquet')
  texts = pandas.read_parquet(folder / 'texts.parquet')
  joined = firings.merge(texts, on='text')
  assert len(joined) == len(firings) > 20


@pytest.mark.interop
def test_polars_reads_the_files(folder, tables):
  import polars

  frame = polars.read_parquet(folder / 'members' / f'{MEMBER}.parquet')
  frame = frame.filter(polars.col('count') > 100)
  frame = frame.select('latent', 'promoted').explode('promoted')
  shown = frame.unnest('promoted').rows()
  assert shown == _expected(tables)
  firings = polars.read_parquet(folder / 'members' / f'{MEMBER}.texts.parquet')
  assert firings['latents'].list.len().sum() > 20


@pytest.mark.interop
def test_duckdb_runs_the_sql_of_the_docs(folder, tables):
  import duckdb

  (sql,) = re.findall('```sql\n(.*?)```', DOCS.read_text(), re.DOTALL)
  shown = duckdb.sql(sql.replace('DIR2', str(folder))).fetchall()
  assert [(row[0], row[3]) for row in shown] == [
      (latent, effect) for latent, _, effect in _expected(tables)
  ]
  pieces = pandas.read_parquet(folder / 'vocabulary.parquet')['piece']
  ids = [token for _, token, _ in _expected(tables)]
  assert [row[2] for row in shown] == np.asarray(pieces)[ids].tolist()
