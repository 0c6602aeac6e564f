"""Tests of features against NumPy, from token ids and params.npz."""

import json

import numpy as np
from pyarrow import parquet
import pytest

from jumprelu import errors
from jumprelu.data import packing
from jumprelu.features import collect, member_table, text_pass
from jumprelu.release import formats
from jumprelu.run import main
from tests.features.conftest import CONFIG, CORPUS, collected


def _each(tables, reference):
  """Yields (path, row of the table, its latent at each position)."""
  for path, rows in tables.items():
    assert [row['latent'] for row in rows] == list(range(len(rows)))
    for row in rows:
      yield path, row, reference.values[path][..., row['latent']]


def test_the_text_makes_latents_fire(reference):
  for values in reference.values.values():
    counts = (values != 0).sum((0, 1))
    assert counts[-1] == 0 and np.median(counts) > 10
  assert len(reference.tokens) > 4 * CONFIG.lm_sequences


def test_counts_means_and_histograms_are_those_of_the_text(tables, reference):
  edges = [0, *(2.0 ** (np.arange(-32, 49) / 4)).astype(np.float32), np.inf]
  for path, row, values in _each(tables, reference):
    on = values[values != 0]
    assert row['member'] == path and row['tokens'] == reference.kept
    assert row['count'] == len(on)
    assert row['frequency'] == len(on) / reference.kept
    np.testing.assert_allclose(
        [row['mean'], row['largest']],
        [on.mean(), on.max()] if len(on) else [0, 0],
        rtol=1e-5,
    )
    difference = row['histogram'] - np.histogram(on, edges)[0]
    # A value near an edge may be rounded to the other bin.
    assert abs(difference).sum() <= 2 and difference.sum() == 0
    threshold = reference.params[path]['threshold'][row['latent']]
    assert row['threshold'] == pytest.approx(threshold)


def test_token_statistics_are_those_of_the_text(tables, reference):
  positions = packing.positions(reference.tokens)
  for _, row, values in _each(tables, reference):
    on = values != 0
    ids, which = np.unique(reference.tokens[on], return_inverse=True)
    counts = np.bincount(which, minlength=len(ids))
    means = np.bincount(which, values[on], len(ids)) / counts
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    assert row['token_entropy'] == pytest.approx(entropy, abs=1e-9)
    top = row['top_tokens']
    assert len(top) == min(CONFIG.listed, len(ids))
    expected = np.sort(means)[::-1][: len(top)]
    np.testing.assert_allclose([t['mean'] for t in top], expected, rtol=1e-5)
    for entry in top:
      i = np.flatnonzero(ids == entry['token'])[0]
      assert entry['count'] == counts[i]
    bins = np.floor(np.log2(positions[on])).astype(int)
    expected = np.bincount(bins, minlength=len(row['position_profile']))
    assert row['position_profile'] == expected.tolist()


def _check_window(example, row, reference, values):
  """Checks an example's window and returns its values."""
  length = reference.tokens.shape[1]
  at, column = divmod(example['position'], length)
  at = int(np.flatnonzero(reference.rows == at)[0])
  document = reference.documents[at, column]
  assert example['document'] == document
  assert example['offset'] == example['position'] - document
  span = [
      p
      for p in range(column - CONFIG.window, column + CONFIG.window + 1)
      if 0 <= p < length
      and reference.documents[at, p] == document
      and reference.tokens[at, p] != packing.PAD
  ]
  assert example['tokens'] == reference.tokens[at, span].tolist()
  assert example['index'] == span.index(column)
  np.testing.assert_allclose(
      example['values'], values[at, span], rtol=1e-4, atol=1e-5
  )
  assert example['values'][example['index']] == example['value']
  return example['values']


def test_examples_are_the_strongest_one_a_document(tables, reference):
  for _, row, values in _each(tables, reference):
    on = values != 0
    documents = np.unique(reference.documents[on])
    best = [values[reference.documents == d].max() for d in documents]
    expected = np.sort(best)[::-1][: CONFIG.examples]
    shown = [e['value'] for e in row['examples']]
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert len({e['document'] for e in row['examples']}) == len(shown)
    for example in row['examples']:
      _check_window(example, row, reference, values)


def test_bands_are_quantiles_with_firings_drawn_from_each(tables, reference):
  exact = 0
  for _, row, values in _each(tables, reference):
    on = np.sort(values[values != 0])
    examples, edges = row['band_examples'], row['band_edges']
    assert len({e['position'] for e in examples}) == len(examples)
    assert len(edges) == (CONFIG.bands + 1) * (len(on) >= CONFIG.bands)
    if CONFIG.bands <= len(on) <= CONFIG.sample:
      exact += 1
      parts = np.array_split(on, CONFIG.bands)
      sizes = [len(p) for p in parts]
      if len(set(sizes)) == 1:
        expected = [*(p[0] for p in parts), on[-1]]
        np.testing.assert_allclose(edges, expected, rtol=1e-5)
    for example in examples:
      _check_window(example, row, reference, values)
      if edges:
        low, high = edges[example['band']], edges[example['band'] + 1]
        assert low <= example['value'] <= high
    for band in range(CONFIG.bands) if len(on) >= 20 else ():
      drawn = [e for e in examples if e['band'] == band]
      assert len(drawn) == CONFIG.band_examples
  assert exact > 10


def test_silent_examples_have_no_activation(tables, reference):
  drawn = {}
  for path, row, values in _each(tables, reference):
    for example in row['silent_examples']:
      window = _check_window(example, row, reference, values)
      assert not any(window)
    drawn.setdefault(path, set()).update(
        e['position'] for e in row['silent_examples']
    )
    if not values.any():
      assert len(row['silent_examples']) == CONFIG.silent_examples
  # Latents have different windows.
  assert all(len(places) > 10 for places in drawn.values())


def test_coactivations_are_the_largest_jaccard_indices(tables, reference):
  for path, row, values in _each(tables, reference):
    every = reference.values[path] != 0
    on = values != 0
    both = (every & on[..., None]).sum((0, 1))
    jaccard = both / np.maximum((every | on[..., None]).sum((0, 1)), 1)
    jaccard[row['latent']] = 0
    order = np.argsort(-jaccard, kind='stable')[: CONFIG.listed]
    order = [i for i in order if jaccard[i] > 0]
    assert [e['latent'] for e in row['coactive']] == order
    assert [e['both'] for e in row['coactive']] == both[order].tolist()
    np.testing.assert_allclose(
        [e['jaccard'] for e in row['coactive']], jaccard[order]
    )


def _unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_neighbours_have_the_largest_cosines(tables, reference):
  targets = {'transcoder': 'mlp_out'}
  for path, rows in tables.items():
    decoder = _unit(reference.params[path]['W_dec'])
    site = reference.sites[path]
    others = {
        other: _unit(p['W_dec'])
        for other, p in reference.params.items()
        if other != path
        and targets.get(reference.sites[other], reference.sites[other])
        == targets.get(site, site)
    }
    for row in rows:
      cosines = decoder @ decoder[row['latent']]
      cosines[row['latent']] = -2
      order = np.argsort(-cosines)[: CONFIG.listed].tolist()
      assert [e['latent'] for e in row['neighbours']] == order
      elsewhere = [
          (cosine, other, i)
          for other, theirs in others.items()
          for i, cosine in enumerate(theirs @ decoder[row['latent']])
      ]
      expected = sorted(elsewhere, reverse=True)[: CONFIG.listed]
      shown = row['neighbours_elsewhere']
      assert [(e['member'], e['latent']) for e in shown] == [
          (other, i) for _, other, i in expected
      ]
      np.testing.assert_allclose(
          [e['cosine'] for e in shown], [e[0] for e in expected], atol=1e-5
      )


def test_some_members_have_neighbours_in_others_and_some_not(tables):
  counts = {len(rows[0]['neighbours_elsewhere']) for rows in tables.values()}
  assert counts == {0, CONFIG.listed}


def test_encoder_cosines_are_null_for_transcoders(tables, reference):
  for path, rows in tables.items():
    params = reference.params[path]
    cosines = (_unit(params['W_enc'].T) * _unit(params['W_dec'])).sum(1)
    shown = [row['encoder_cosine'] for row in rows]
    if reference.sites[path] == 'transcoder':
      assert set(shown) == {None}
    else:
      np.testing.assert_allclose(shown, cosines, atol=1e-5)
    norms = np.linalg.norm(params['W_dec'], axis=1)
    np.testing.assert_allclose(
        [row['decoder_norm'] for row in rows], norms, rtol=1e-5
    )


def test_promoted_tokens_have_the_largest_products(tables, reference, model):
  gain = 1 + np.asarray(model.params['final_norm']['scale'])
  embedding = np.asarray(model.params['embedder']['input_embedding'])
  embedding = (embedding * gain)[: model.tokenizer.vocab_size]
  for path, rows in tables.items():
    decoder = reference.params[path]['W_dec']
    if reference.sites[path] == 'attn_heads':
      layer = model.params['layer_2']
      weights = np.asarray(layer['attn']['attn_vec_einsum']['w'])
      decoder = decoder @ weights.reshape(-1, weights.shape[-1])
      decoder *= 1 + np.asarray(layer['post_attention_norm']['scale'])
    effects = decoder @ embedding.T
    for row in rows[::5]:
      for column, sign in (('promoted', 1), ('suppressed', -1)):
        expected = sign * np.sort(sign * effects[row['latent']])[::-1]
        shown = [e['effect'] for e in row[column]]
        np.testing.assert_allclose(
            shown, expected[: CONFIG.listed], rtol=1e-4, atol=1e-6
        )
        ids = [e['token'] for e in row[column]]
        np.testing.assert_allclose(
            effects[row['latent'], ids], shown, rtol=1e-4, atol=1e-6
        )


def _check_close(ours, theirs):
  """Compares nested lists and dicts; floats may differ by rounding."""
  if isinstance(theirs, list):
    for x, y in zip(ours, theirs, strict=True):
      _check_close(x, y)
  elif isinstance(theirs, dict):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
      _check_close(ours[name], value)
  elif isinstance(theirs, float):
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
  else:
    assert ours == theirs


def test_segments_and_blocks_do_not_change_the_tables(
    release, folder, tmp_path, monkeypatch
):
  monkeypatch.setattr(text_pass, 'SEGMENT_FIRINGS', 500)
  monkeypatch.setattr(text_pass, 'DENSE_BYTES', 0)
  monkeypatch.setattr(text_pass, 'FIRST_BOUND', 1)
  monkeypatch.setattr(member_table, 'BLOCK_LATENTS', 7)
  written = []
  write = text_pass.segments.write
  monkeypatch.setattr(
      text_pass.segments, 'write', lambda *a: written.append(write(*a))
  )
  other, _ = collected(release, tmp_path / 'other')
  assert len(written) > 2
  # Sums and products of matrices depend on the order of additions.
  rounded = ('mean', 'top_tokens', 'promoted', 'suppressed', 'neighbours')
  rounded += ('neighbours_elsewhere', 'token_entropy', 'encoder_cosine')
  for path in sorted((folder / 'members').rglob('*.parquet')):
    name = path.relative_to(folder)
    expected = parquet.read_table(path)
    table = parquet.read_table(other / name).cast(expected.schema)
    for column in expected.column_names:
      if column in rounded:
        ours, theirs = table[column].to_pylist(), expected[column].to_pylist()
        _check_close(ours, theirs)
      else:
        assert table[column].equals(expected[column]), (name, column)
  for name in ('manifest.json', 'vocabulary.parquet'):
    assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_a_collection_that_was_stopped_is_resumed(
    release, folder, tmp_path, monkeypatch
):
  write, calls = member_table.MemberTable.write, []

  def stopped(self, path, tables):
    calls.append(path)
    if len(calls) == 2:
      raise KeyboardInterrupt
    write(self, path, tables)

  monkeypatch.setattr(member_table.MemberTable, 'write', stopped)
  with pytest.raises(KeyboardInterrupt):
    collected(release, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
  # The complete segments are not read again.
  monkeypatch.setattr(text_pass, 'active', None)
  out, _ = collected(release, tmp_path / 'out')
  assert calls[0] not in calls[1:]
  assert len(calls) == 6
  files = sorted(p.relative_to(out) for p in out.rglob('*') if p.is_file())
  assert files == sorted(
      p.relative_to(folder) for p in folder.rglob('*') if p.is_file()
  )
  for name in files:
    assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_other_settings_do_not_resume_a_collection(
    release, tmp_path, monkeypatch
):
  monkeypatch.setattr(collect.tables, 'write', lambda *a, **b: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    collected(release, tmp_path / 'out', paths=['transcoder'])
  marker = tmp_path / 'out.partial' / 'segments' / 'marker'
  marker.write_text('')
  with pytest.raises(ZeroDivisionError):
    collected(release, tmp_path / 'out', paths=['transcoder'])
  assert marker.exists()
  with pytest.raises(ZeroDivisionError):
    collected(release, tmp_path / 'out', paths=['transcoder'], tokens=64)
  assert not marker.exists()


def test_the_manifest_describes_members_text_and_model(
    folder, reference, release, model
):
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['format'] == 1 and manifest['settings']['seed'] == 0
  assert manifest['tokens'] == reference.kept
  assert manifest['positions'] == reference.tokens.size
  keep = packing.keep_mask(reference.tokens)
  documents = np.unique(reference.documents[keep])
  assert manifest['documents'] == len(documents)
  assert sum(manifest['position_totals']) == reference.kept
  assert [m['path'] for m in manifest['members']] == list(reference.values)
  for member in manifest['members']:
    assert (folder / member['file']).is_file()
  vocabulary = parquet.read_table(folder / 'vocabulary.parquet').to_pylist()
  counts = np.bincount(reference.tokens[keep], minlength=len(vocabulary))
  assert [row['count'] for row in vocabulary] == counts.tolist()
  assert vocabulary[300]['piece'] == model.tokenizer.piece(300)


def test_the_command_writes_the_chosen_members(release, tmp_path, capsys):
  out = tmp_path / 'out'
  argv = [
      'features',
      str(release),
      f'--out={out}',
      '--members=transcoder',
      '--tokens=64',
      *(f'--corpus.{name}={value}' for name, value in CORPUS.items()),
  ]
  assert main.main(argv) == 0
  assert '1 member, 32 latents' in capsys.readouterr().out
  manifest = json.loads((out / 'manifest.json').read_text())
  assert manifest['positions'] == 64
  assert main.main(argv) == 2
  assert 'exists; choose another folder' in capsys.readouterr().err


def test_unknown_members_are_named(release):
  with pytest.raises(errors.UserError, match='--members=layer_9: no member'):
    formats.select(formats.find(release), ['layer_9'])
