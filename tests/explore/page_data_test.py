"""The page holds the values of the Parquet files."""

import numpy as np
import pytest

from jumprelu.explore import page_data as page_data_lib
from jumprelu.features import reading
from tests.explore.conftest import read_page_data


def _entries(shard, name, row, fields):
  start, end = shard[f'{name}.start'][row : row + 2]
  columns = [shard[f'{name}.{field}'][start:end].tolist() for field in fields]
  return list(zip(*columns, strict=True))


def _each(page, folder):
  """Yields (index, shard, row in the shard, row of the Parquet file)."""
  index, arrays = page
  for member in index['members']:
    rows = reading.read_latents(folder, member['id'])
    assert len(rows) == member['width']
    for row in rows:
      shard, at = divmod(row['latent'], member['shard'])
      yield index, arrays[member['shards'][shard]], at, row


def _approximately(values):
  return pytest.approx(values, rel=1e-6)


def test_numbers_and_lists_are_those_of_the_files(page, folder):
  for index, shard, i, row in _each(page, folder):
    assert shard['histogram'][i].tolist() == row['histogram']
    assert shard['position_profile'][i].tolist() == row['position_profile']
    edges = shard['band_edges'][i]
    assert edges[~np.isnan(edges)].tolist() == row['band_edges']
    for name, fields in (
        ('top_tokens', ('token', 'mean', 'count')),
        ('promoted', ('token', 'effect')),
        ('suppressed', ('token', 'effect')),
        ('neighbours', ('latent', 'cosine')),
        ('coactive', ('latent', 'jaccard', 'both')),
    ):
      expected = [tuple(e[f] for f in fields) for e in row[name]]
      read = _entries(shard, name, i, fields)
      assert [e[0] for e in read] == [e[0] for e in expected]
      np.testing.assert_allclose(read, expected, rtol=1e-6)
    elsewhere = _entries(shard, 'elsewhere', i, ('member', 'latent', 'cosine'))
    assert [(index['members'][m]['id'], n) for m, n, _ in elsewhere] == [
        (e['member'], e['latent']) for e in row['neighbours_elsewhere']
    ]


def test_examples_have_their_windows_and_activations(page, folder):
  count = 0
  for _, shard, i, row in _each(page, folder):
    fires = np.unpackbits(shard['values.fires'])[
        : shard['examples.window'][-1]
    ].astype(bool)
    values = np.zeros(len(fires), np.float32)
    values[fires] = shard['values']
    expected = (
        [(-1, e) for e in row['examples']]
        + [(e['band'], e) for e in row['band_examples']]
        + [(-2, e) for e in row['silent_examples']]
    )
    start, end = shard['examples.start'][i : i + 2]
    assert end - start == len(expected)
    for n, (kind, example) in zip(range(start, end), expected, strict=True):
      count += 1
      assert shard['examples.kind'][n] == kind
      for name in ('document', 'offset', 'index'):
        assert shard[f'examples.{name}'][n] == example[name]
      first, last = shard['examples.window'][n : n + 2]
      at = shard['examples.tokens'][n]
      tokens = shard['tokens'][at : at + last - first]
      assert tokens.tolist() == example['tokens']
      np.testing.assert_allclose(
          values[first:last], example['values'], rtol=2.0**-12
      )
      np.testing.assert_allclose(
          shard['examples.value'][n], example['value'], rtol=2.0**-12
      )
  assert count > 300


def test_the_table_has_a_row_for_each_latent(page, folder):
  index, arrays = page
  for member in index['members']:
    table = arrays[member['table']]
    rows = reading.read_latents(folder, member['id'])
    for name in ('count', 'frequency', 'mean', 'largest', 'threshold'):
      np.testing.assert_allclose(
          table[name], [row[name] for row in rows], rtol=1e-6
      )
    tops = [(r['top_tokens'] or [{'token': -1}])[0]['token'] for r in rows]
    assert table['top_token'].tolist() == tops
    few = [len(row['examples']) < 10 for row in rows]
    assert member['few_examples'] == _approximately(np.mean(few))
    assert member['never'] == sum(row['count'] == 0 for row in rows)
    assert sum(member['density']['counts']) == len(rows) - member['never']


def test_search_lists_have_the_tokens_of_the_strongest_examples(page, folder):
  index, arrays = page
  for member in index['members']:
    search = arrays[member['search']]
    for row in reading.read_latents(folder, member['id']):
      i = row['latent']
      start, end = search['context.start'][i : i + 2]
      tokens = {t for e in row['examples'] for t in e['tokens']}
      assert search['context'][start:end].tolist() == sorted(tokens)
      top = [e['token'] for e in row['top_tokens']]
      read = search['top'][i]
      assert read[read >= 0].tolist() == top


def test_texts_have_all_active_latents(page, folder):
  index, arrays = page
  texts = arrays[index['texts']]
  tokens = [
      t for row in reading.read_texts(folder)['tokens'].to_pylist() for t in row
  ]
  assert texts['tokens'].tolist() == tokens
  for k, member in enumerate(index['members']):
    firings = reading.read_text_firings(folder, member['id']).to_pylist()
    assert len(firings) == len(tokens)
    for i, row in enumerate(firings):
      start, end = texts[f'm{k}.start'][i : i + 2]
      assert texts[f'm{k}.latent'][start:end].tolist() == row['latents']
      np.testing.assert_allclose(
          texts[f'm{k}.value'][start:end], row['values'], rtol=2.0**-12
      )


def test_results_and_origin_are_in_the_index(page, release):
  index, arrays = page
  assert index['text']['tokens'] == sum(index['position_totals'])
  assert index['model']['name'] == 'gemma2_nano'
  assert {m['id'] for m in index['members']} <= {
      str(p.parent.relative_to(release)) for p in release.rglob('params.npz')
  }
  names = {column['name'] for column in index['results_columns']}
  assert {'l0', 'fvu', 'delta_loss'} <= names
  assert arrays['vocabulary']['pieces'][2] == '<s>'


def test_a_page_of_some_members_names_the_others_nowhere(folder, page):
  member = page[0]['members'][1]
  data = page_data_lib.collect(folder, title='', members=[member['id']])
  index, arrays = read_page_data(data)
  assert [m['id'] for m in index['members']] == [member['id']]
  assert list(arrays) == list(data.names)
  elsewhere = arrays[index['members'][0]['shards'][0]]['elsewhere.member']
  assert len(elsewhere) and set(elsewhere) == {-1}
  whole = page[1][page[0]['texts']]
  np.testing.assert_array_equal(
      arrays['texts']['m0.latent'], whole['m1.latent']
  )


def test_links_are_short_and_unique(page):
  members = [
      {'id': 'a', 'site': 's', 'layer': 1, 'width': 8, 'variant': 'v', 'results': {'l0': l0}}  # fmt: skip
      for l0 in (10.4, 20.2)
  ]
  assert page_data_lib._links(members) == ['s/10', 's/20']
  members[1] |= {'results': {'l0': 10.1}, 'width': 16}
  assert page_data_lib._links(members) == ['s/1/8/10', 's/1/16/10']
  members[1] |= {'width': 8, 'id': 'b'}
  assert page_data_lib._links(members) == ['a', 'b']
  links = [member['link'] for member in page[0]['members']]
  assert len(set(links)) == len(links)
