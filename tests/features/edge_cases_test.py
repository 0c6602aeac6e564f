"""Tests of features of unusual members and texts."""

import dataclasses

import numpy as np
import pytest

from jumprelu import data, errors, features
from jumprelu.features import collect, reading
from jumprelu.release import formats
from tests.features.conftest import CONFIG, CORPUS, collected

RESID = 'resid_post/layer_2/width_64/average_l0_20'


def _changed(release, latents=slice(None), **params):
  """Returns a residual member with only some latents and other parameters."""
  member = formats.find(release)[RESID]
  arrays = dict(member.params) | params
  arrays = {
      'W_enc': arrays['W_enc'][:, latents],
      'b_enc': arrays['b_enc'][latents],
      'W_dec': arrays['W_dec'][latents],
      'b_dec': arrays['b_dec'],
      'threshold': arrays['threshold'][latents],
  }
  sae = dataclasses.replace(member.sae, width=len(arrays['b_enc']))
  return dataclasses.replace(member, sae=sae, params=arrays)


def _collected(released, out, **changes):
  """Returns the folder of the features of changed members."""
  training = next(iter(released.values())).training
  source = collect.Source(
      'gemma2_nano', training['data'], data.Config(**CORPUS)
  )
  config = dataclasses.replace(CONFIG, **changes)
  collect.collect(released, out, source=source, config=config)
  return out


def test_a_member_whose_latents_never_fire(release, tmp_path):
  dead = _changed(release, threshold=np.full(64, 1e9, np.float32))
  out = _collected({'dead': dead, 'live': _changed(release)}, tmp_path / 'out')
  for row in reading.read_latents(out, 'dead'):
    assert row['count'] == row['frequency'] == row['mean'] == 0
    assert row['largest'] == row['token_entropy'] == 0
    for empty in ('top_tokens', 'band_edges', 'examples', 'band_examples'):
      assert row[empty] == []
    assert row['coactive'] == [] and sum(row['histogram']) == 0
    assert len(row['silent_examples']) == CONFIG.silent_examples
    assert len(row['neighbours']) == len(row['promoted']) == CONFIG.listed
  firings = reading.read_text_firings(out, 'dead').to_pylist()
  assert len(firings) > 20 and not any(row['latents'] for row in firings)
  # The columns have the types of other members.
  live = reading.read_table(out, 'live')
  assert reading.read_table(out, 'dead').schema == live.schema


def test_a_member_with_a_single_latent(release, tables, tmp_path):
  counts = [row['count'] for row in tables[RESID]]
  latent = int(np.argmax(counts))
  single = _changed(release, slice(latent, latent + 1))
  out = _collected({'single': single}, tmp_path / 'out')
  (row,) = reading.read_latents(out, 'single')
  expected = tables[RESID][latent]
  for column in ('count', 'token_entropy', 'position_profile'):
    assert row[column] == expected[column]
  for column, key in (('examples', 'position'), ('promoted', 'token')):
    shown = [entry[key] for entry in row[column]]
    assert shown == [entry[key] for entry in expected[column]]
  assert row['neighbours'] == row['neighbours_elsewhere'] == []
  assert row['coactive'] == []


def test_fewer_documents_than_examples_and_passages(release, tmp_path):
  out = _collected(
      {'x': _changed(release)}, tmp_path / 'out', examples=50, texts=50
  )
  documents = reading.read_manifest(out)['documents']
  assert 1 < documents < 50
  assert len(reading.read_texts(out)) == documents
  counts = [len(row['examples']) for row in reading.read_latents(out, 'x')]
  assert max(counts) == documents


def test_positions_with_non_finite_activations_are_left_out(
    release, reference, tmp_path, monkeypatch
):
  # All tokens of a document after this token have non-finite activations.
  ids, counts = np.unique(reference.tokens, return_counts=True)
  token = int(ids[np.argsort(counts)[-8]])
  load = collect._load_model

  def damaged(*args):
    model = load(*args)
    rows = model.params['embedder']['input_embedding']
    embedder = {'input_embedding': rows.at[token].set(np.nan)}
    return dataclasses.replace(
        model, params=model.params | {'embedder': embedder}
    )

  monkeypatch.setattr(collect, '_load_model', damaged)
  out = _collected({'x': _changed(release)}, tmp_path / 'out')
  manifest = reading.read_manifest(out)
  assert 0 < manifest['tokens'] < reference.kept
  vocabulary = reading.read_vocabulary(out)
  assert vocabulary['count'][token].as_py() == 0
  assert sum(vocabulary['count'].to_pylist()) == manifest['tokens']
  for row in reading.read_latents(out, 'x'):
    assert row['tokens'] == manifest['tokens']
    for example in row['examples'] + row['silent_examples']:
      assert np.isfinite(example['values']).all()
  for text in reading.read_texts(out).to_pylist():
    assert token not in text['tokens']


def test_a_text_without_any_kept_token(release, tmp_path, monkeypatch):
  step = collect.text_pass._Step.__call__

  def nothing(self, tokens):
    keep, latents = step(self, tokens)
    return keep & False, [
        part._replace(values=part.values * 0) for part in latents
    ]

  monkeypatch.setattr(collect.text_pass._Step, '__call__', nothing)
  out, manifest = collected(release, tmp_path / 'out', paths=['transcoder'])
  assert manifest['tokens'] == manifest['documents'] == 0
  assert len(reading.read_texts(out)) == 0
  for row in reading.read_latents(out, manifest['members'][0]['path']):
    assert row['count'] == 0 and row['frequency'] == 0
    assert row['silent_examples'] == []


def test_settings_that_cannot_hold_are_refused():
  with pytest.raises(errors.UserError, match='features.texts must be at least'):
    features.Config(texts=0)
