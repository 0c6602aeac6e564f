"""The demo's features, recomputed from token ids and params.npz by NumPy.

Nothing of jumprelu.features is used: the language model gives the activations,
and everything else is computed here. XLA and NumPy round differently, so a
pre-activation within `NEAR` of its threshold may be on either side of it.
"""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from pyarrow import parquet
import pytest

from jumprelu import data, lm
from jumprelu.data import packing
from tests.features import plain_text
from tests.local_processes import jumprelu

pytestmark = pytest.mark.slow

LATENTS = 200
NEAR = 5e-5


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
  if 'JUMPRELU_DEMO' in os.environ:  # An existing run of the demo.
    return pathlib.Path(os.environ['JUMPRELU_DEMO'])
  out = tmp_path_factory.mktemp('demo') / 'out'
  jumprelu('demo', f'--out={out}')
  return out


@pytest.fixture(scope='module')
def folder(demo, tmp_path_factory):
  if (demo / 'features').exists():
    return demo / 'features'
  out = tmp_path_factory.mktemp('features') / 'out'
  jumprelu('features', f'--release={demo / "release"}', f'--out={out}')
  return out


@pytest.fixture(scope='module')
def manifest(folder):
  return json.loads((folder / 'manifest.json').read_text())


@pytest.fixture(scope='module')
def model():
  return lm.load('gemma2_nano')


class Text:
  """The text that the manifest describes, and the activations on it."""

  def __init__(self, model, manifest, config):
    corpus = data.Config(
        **{
            name: config['corpus'][name]
            for name in ('sequence_length', 'held_out_percent', 'seed')
        }
    )
    tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
    cache = data.prepare(config['data'], tokenizer, corpus).held_out
    count = -(-manifest['settings']['tokens'] // cache.sequence_length)
    order = np.random.RandomState(0).permutation(len(cache))
    self.rows = order[:count]
    self.tokens = cache.tokens_at(self.rows)
    self.documents = plain_text.document_starts(cache)[self.rows]
    ids = self.tokens
    self.keep = ~np.isin(ids, [packing.PAD, packing.BOS, packing.EOS])
    self.vocab = tokenizer.vocab_size
    run = jax.jit(
        functools.partial(lm.activations, model), static_argnames='taps'
    )
    layer = manifest['members'][0]['layer']
    taps = tuple(lm.Tap(layer, site) for site in lm.Site)
    parts = [
        run(
            model.params,
            jnp.asarray(tokens),
            positions=jnp.asarray(packing.positions(tokens)),
            segments=jnp.asarray(packing.segments(tokens)),
            taps=taps,
        )
        for tokens in np.array_split(self.tokens, 8)
    ]
    self.activations = {
        tap.site: np.concatenate([part[tap] for part in parts]) for tap in taps
    }

  def passages(self, folder):
    """Returns the position in the text of each token of the passages."""
    length = self.tokens.shape[1]
    places = []
    for entry in parquet.read_table(folder / 'texts.parquet').to_pylist():
      row, column = divmod(entry['position'], length)
      first = np.flatnonzero(self.rows == row)[0] * length + column
      places.append(first + np.arange(len(entry['tokens'])))
    return np.concatenate(places)


@pytest.fixture(scope='module')
def text(model, manifest, demo):
  path = demo / 'release' / manifest['members'][0]['path'] / 'config.json'
  return Text(model, manifest, json.loads(path.read_text())['training'])


class Member:
  """Some rows of a member's table, and the same latents by NumPy.

  Attributes:
    path: The path in the release.
    site: The site.
    params: The arrays of params.npz.
    rows: The chosen rows of the table.
    values: Their latents on the text [latents, rows, positions].
    sure: Whether a latent surely fires, of the same shape.
    perhaps: Whether it fires or is near its threshold.
    both: The numbers of tokens on which it and each latent of the member fire:
      the least possible, and the largest.
    counts: The least and the largest number of firings of each latent.
    texts: For the tokens of the passages: rows of the table, pre-activations
      [tokens, latents], and whether each latent surely or perhaps fires.
  """

  def __init__(self, entry, *, demo, folder, model, text, rng):
    self.path, self.site = entry['path'], entry['site']
    with np.load(demo / 'release' / self.path / 'params.npz') as arrays:
      self.params = p = dict(arrays)
    site = 'mlp_in' if self.site == 'transcoder' else self.site
    x = text.activations[lm.Site(site)]
    config = json.loads(
        (demo / 'release' / self.path / 'config.json').read_text()
    )
    if self.site == 'transcoder' and not config['input_gain']:
      norm = model.params[f'layer_{entry["layer"]}']['pre_ffw_norm']
      x = x / (1 + np.asarray(norm['scale']))
    z = x @ p['W_enc'] + p['b_enc']
    keep = text.keep[..., None]
    sure = keep & (z > p['threshold'] + NEAR)
    perhaps = keep & (z > p['threshold'] - NEAR)
    table = parquet.read_table(folder / entry['file'])
    chosen = rng.choice(len(table), -(-LATENTS // 12), replace=False)
    self.rows = table.take(chosen).to_pylist()
    self.values = np.moveaxis(z[..., chosen], -1, 0)
    self.values *= np.moveaxis(keep & (z > p['threshold']), -1, 0)[chosen]
    self.sure, self.perhaps = (
        np.moveaxis(every[..., chosen], -1, 0) for every in (sure, perhaps)
    )
    self.both, self.counts = [], []
    for every in (sure, perhaps):
      flat = every.reshape(-1, every.shape[-1]).astype(np.float32)
      self.both.append((flat[:, chosen].T @ flat).astype(int))
      self.counts.append(flat.sum(0).astype(int))
    at = text.passages(folder)
    table = parquet.read_table(folder / entry['text_firings'])
    self.texts = (
        table.to_pylist(),
        *(
            every.reshape(-1, every.shape[-1])[at]
            for every in (z, sure, perhaps)
        ),
    )


@pytest.fixture(scope='module')
def members(demo, folder, model, text, manifest):
  rng = np.random.default_rng(5)
  made = [
      Member(e, demo=demo, folder=folder, model=model, text=text, rng=rng)
      for e in manifest['members']
  ]
  assert sum(len(member.rows) for member in made) >= LATENTS
  return made


def _each(members):
  """Yields (row of the table, values, surely fires, perhaps fires)."""
  for member in members:
    arrays = member.values, member.sure, member.perhaps
    yield from zip(member.rows, *arrays, strict=True)


def test_frequencies_means_and_histograms(members, text):
  edges = [0, *np.float32(2.0 ** (np.arange(-32, 49) / 4)), np.inf]
  exact = 0
  for row, values, sure, perhaps in _each(members):
    unsure = perhaps.sum() - sure.sum()
    exact += unsure == 0
    assert row['tokens'] == text.keep.sum()
    assert sure.sum() <= row['count'] <= perhaps.sum()
    assert row['frequency'] == row['count'] / row['tokens']
    on = values[values != 0].astype(np.float64)
    if len(on):
      # An unsure firing has a value near the threshold.
      slack = unsure * abs(on.mean()) / len(on) + 1e-5 * on.mean()
      assert abs(row['mean'] - on.mean()) <= slack
      assert row['largest'] == pytest.approx(on.max(), rel=1e-5)
    difference = row['histogram'] - np.histogram(on, edges)[0]
    borders = sum((abs(on - edge) < 1e-5 * edge).sum() for edge in edges[1:-1])
    assert abs(difference).sum() <= 2 * borders + unsure
  assert exact > LATENTS / 2


def _check_window(example, values, text, window):
  """Checks an example's tokens and values."""
  length = text.tokens.shape[1]
  row, column = divmod(example['position'], length)
  row = int(np.flatnonzero(text.rows == row)[0])
  document = text.documents[row, column]
  span = [
      p
      for p in range(column - window, column + window + 1)
      if 0 <= p < length
      and text.documents[row, p] == document
      and text.tokens[row, p] != packing.PAD
  ]
  assert example['document'] == document
  assert example['offset'] == example['position'] - document
  assert example['tokens'] == text.tokens[row, span].tolist()
  assert example['index'] == span.index(column)
  # A latent near its threshold may be 0 in one of both.
  ours, theirs = values[row, span], np.array(example['values'])
  same = np.isclose(ours, theirs, rtol=1e-4, atol=1e-4)
  assert (same | (ours * theirs == 0)).all() and (~same).sum() <= 1
  assert theirs[example['index']] == example['value']


def test_top_examples_and_the_windows_of_all_examples(members, text, manifest):
  settings = manifest['settings']
  documents = np.unique(text.documents[text.keep])
  for row, values, *_ in _each(members):
    best = [values[text.documents == d].max() for d in documents]
    best = np.sort([v for v in best if v > 0])[::-1][: settings['examples']]
    shown = [e['value'] for e in row['examples']]
    np.testing.assert_allclose(shown, best, rtol=1e-5, atol=NEAR)
    assert len({e['document'] for e in row['examples']}) == len(shown)
    for kind in ('examples', 'band_examples', 'silent_examples'):
      for example in row[kind]:
        _check_window(example, values, text, settings['window'])
    # Latents with fewer firings than bands have no edges.
    for example in row['band_examples'] if row['band_edges'] else ():
      low, high = row['band_edges'][example['band'] :][:2]
      assert low <= example['value'] <= high
    assert len(row['band_edges']) in (0, settings['bands'] + 1)
    assert bool(row['band_edges']) == (row['count'] >= settings['bands'])
    assert not any(any(e['values']) for e in row['silent_examples'])


def test_top_tokens_and_entropies(members, text, manifest):
  listed, exact = manifest['settings']['listed'], 0
  for row, values, sure, perhaps in _each(members):
    on = values != 0
    if not on.any() or sure.sum() != perhaps.sum():
      continue
    exact += 1
    ids, which = np.unique(text.tokens[on], return_inverse=True)
    counts = np.bincount(which)
    means = np.bincount(which, values[on]) / counts
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    assert row['token_entropy'] == pytest.approx(entropy, abs=1e-9)
    shown = [t['mean'] for t in row['top_tokens']]
    expected = np.sort(means)[::-1][:listed]
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    for entry in row['top_tokens']:
      i = np.flatnonzero(ids == entry['token'])[0]
      assert entry['count'] == counts[i]
      assert entry['mean'] == pytest.approx(means[i], rel=1e-5)
  assert exact > LATENTS / 2


def test_coactivations(members, manifest):
  listed = manifest['settings']['listed']
  for member in members:
    for i, row in enumerate(member.rows):
      (least, largest), latent = member.both, row['latent']
      low, high = member.counts
      # The bounds of the Jaccard index of all latents with this one.
      either = low[latent] + low - largest[i], high[latent] + high - least[i]
      lower = least[i] / np.maximum(either[1], 1)
      upper = largest[i] / np.maximum(either[0], 1)
      lower[latent] = upper[latent] = 0
      ids = [e['latent'] for e in row['coactive']]
      shown = np.array([e['jaccard'] for e in row['coactive']])
      assert latent not in ids and len(set(ids)) == len(ids)
      assert (lower[ids] <= shown + 1e-9).all()
      assert (shown <= upper[ids] + 1e-9).all()
      assert (np.diff(shown) <= 0).all()
      both = np.array([e['both'] for e in row['coactive']], int)
      assert (least[i][ids] <= both).all() and (both <= largest[i][ids]).all()
      rest = np.delete(lower, ids)
      if len(ids) == listed:
        assert rest.max() <= shown[-1] + 1e-9
      else:
        assert rest.max() == 0


def _unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_neighbours_in_the_member_and_elsewhere(members, manifest):
  listed = manifest['settings']['listed']
  units = {member.path: _unit(member.params['W_dec']) for member in members}

  def target(member):
    return 'mlp_out' if member.site == 'transcoder' else member.site

  for member in members:
    others = [
        other
        for other in members
        if other is not member and target(other) == target(member)
    ]
    for row in member.rows:
      direction = units[member.path][row['latent']]
      cosines = units[member.path] @ direction
      cosines[row['latent']] = -2
      best = np.sort(cosines)[::-1][:listed]
      shown = row['neighbours']
      np.testing.assert_allclose([e['cosine'] for e in shown], best, atol=1e-5)
      for entry in shown:
        expected = cosines[entry['latent']]
        assert entry['cosine'] == pytest.approx(expected, abs=1e-5)
      elsewhere = {o.path: units[o.path] @ direction for o in others}
      best = np.sort(np.concatenate([*elsewhere.values(), []]))[::-1][:listed]
      shown = row['neighbours_elsewhere']
      np.testing.assert_allclose([e['cosine'] for e in shown], best, atol=1e-5)
      for entry in shown:
        expected = elsewhere[entry['member']][entry['latent']]
        assert entry['cosine'] == pytest.approx(expected, abs=1e-5)


def test_promoted_and_suppressed_tokens(members, model, text, manifest):
  listed = manifest['settings']['listed']
  gain = 1 + np.asarray(model.params['final_norm']['scale'])
  unembedding = np.asarray(model.params['embedder']['input_embedding'])
  unembedding = (unembedding * gain)[: text.vocab]
  for member in members:
    decoder = member.params['W_dec']
    if member.site == 'attn_heads':
      layer = model.params['layer_2']
      weights = np.asarray(layer['attn']['attn_vec_einsum']['w'])
      decoder = decoder @ weights.reshape(-1, weights.shape[-1])
      decoder = decoder * (
          1 + np.asarray(layer['post_attention_norm']['scale'])
      )
    for row in member.rows:
      effects = unembedding @ decoder[row['latent']]
      for column, sign in (('promoted', 1), ('suppressed', -1)):
        best = sign * np.sort(sign * effects)[::-1][:listed]
        shown = [e['effect'] for e in row[column]]
        np.testing.assert_allclose(shown, best, rtol=1e-4, atol=1e-6)
        ids = [e['token'] for e in row[column]]
        np.testing.assert_allclose(effects[ids], shown, rtol=1e-4, atol=1e-6)


def test_passages_have_their_tokens_and_all_active_latents(
    members, text, folder, manifest
):
  texts = parquet.read_table(folder / 'texts.parquet').to_pylist()
  at = text.passages(folder)
  assert text.keep.reshape(-1)[at].all()
  tokens = [token for entry in texts for token in entry['tokens']]
  assert text.tokens.reshape(-1)[at].tolist() == tokens
  assert len({entry['document'] for entry in texts}) == len(texts)
  for member in members:
    rows, values, sure, perhaps = member.texts
    assert len(rows) == len(tokens)
    for i, row in enumerate(rows):
      shown = row['latents']
      assert set(np.flatnonzero(sure[i])) <= set(shown)
      assert set(shown) <= set(np.flatnonzero(perhaps[i]))
      np.testing.assert_allclose(row['values'], values[i][shown], atol=1e-3)
      assert row['values'] == sorted(row['values'], reverse=True)
