"""Tests of single latents: counts, examples and logits by plain NumPy."""

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.api import latents as latents_lib
from jumprelu.data import packing

TOKENS = 2_000


@pytest.fixture(scope='module')
def sae(suite):
  return suite['resid_post', 20]


@pytest.fixture(scope='module')
def dense(sae, model):
  """Returns the rows of text, and latents encoded one row at a time."""
  firings = latents_lib._firings(sae, model, None, TOKENS)
  values = []
  for row in firings.rows:
    parts, starts = [], np.flatnonzero(row == packing.BOS)
    ends = [*starts[1:], len(row)]
    for start, end in zip(starts, ends, strict=True):
      tokens = row[start:end]
      count = int((tokens != packing.PAD).sum())
      tap = sae.reads.input
      part = np.zeros((end - start, sae.width), np.float32)
      encoded = sae.encode(model.activations(tokens[:count], tap)[tap])
      keep = packing.keep_mask(tokens[:count])
      part[:count] = np.where(keep[:, None], encoded, 0)
      parts.append(part)
    values.append(np.concatenate(parts))
  return firings.rows, np.stack(values)


def test_counts_means_and_maxima_are_those_of_the_text(sae, dense):
  rows, values = dense
  kept = packing.keep_mask(rows).sum()
  for index in range(0, sae.width, 7):
    latent = sae.latent(index, tokens=TOKENS)
    column = values[..., index]
    on = column[column != 0]
    assert (latent.tokens, latent.count) == (kept, len(on))
    assert latent.frequency == len(on) / kept
    if len(on):
      assert latent.mean == pytest.approx(on.mean(), rel=1e-4)
      assert latent.largest == pytest.approx(on.max(), rel=1e-4)
    assert latent.histogram.sum() == len(on)


def test_examples_are_the_largest_values_one_a_document(sae, dense, model):
  rows, values = dense
  index = int(np.argmax((values != 0).sum((0, 1))))
  examples = sae.examples(index, k=5, tokens=TOKENS)
  assert examples[0].value == pytest.approx(values[..., index].max(), rel=1e-4)
  shown = [e.value for e in examples]
  assert shown == sorted(shown, reverse=True)
  documents = latents_lib._firings(sae, model, None, TOKENS).documents
  firing = len(np.unique(documents[values[..., index] != 0]))
  assert len(shown) == min(5, firing) > 1
  for example in examples:
    assert example.values[example.index] == pytest.approx(example.value)
    assert len(example.pieces) == len(example.values) <= 21


def test_promoted_tokens_have_the_largest_products(sae, model):
  latent = sae.latent(3, k=4, tokens=TOKENS)
  gain = 1 + np.asarray(model.params['final_norm']['scale'])
  embedding = np.asarray(model.params['embedder']['input_embedding'])
  effects = (embedding * gain) @ sae.W_dec[3]
  effects = effects[: model.tokenizer.vocab_size]
  expected = np.sort(effects)[::-1][:4]
  np.testing.assert_allclose(
      [e for _, e in latent.promoted], expected, rtol=1e-4
  )
  expected = np.sort(effects)[:4]
  np.testing.assert_allclose(
      [e for _, e in latent.suppressed], expected, rtol=1e-4
  )


def test_neighbours_have_the_largest_cosines(sae):
  rows = sae.W_dec / np.linalg.norm(sae.W_dec, axis=1, keepdims=True)
  cosines = rows @ rows[3]
  cosines[3] = -np.inf
  neighbours = sae.latent(3, k=4, tokens=TOKENS).neighbours
  assert [i for i, _ in neighbours] == np.argsort(-cosines)[:4].tolist()


def test_a_silent_latent_has_a_page_too(sae, dense):
  _, values = dense
  assert not values[..., -1].any()
  latent = sae.latent(sae.width - 1, tokens=TOKENS)
  assert latent.count == 0 and latent.examples == []
  assert 'fires on 0.000%' in repr(latent)


def test_a_latent_beyond_the_width_is_refused(sae):
  for index in (64, -1):
    with pytest.raises(errors.UserError, match='has latents 0 to 63'):
      sae.latent(index)
  with pytest.raises(errors.UserError, match='tokens=0, but 1 is the least'):
    sae.latent(3, tokens=0)


def test_the_index_may_be_numpys_and_the_text_a_path(sae, release):
  latent = sae.latent(np.int64(3), tokens=TOKENS, text=release.parent / 'text')
  assert repr(latent) == repr(sae.latent(3, tokens=TOKENS))
