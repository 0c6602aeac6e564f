"""Tests of language models for interactive use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jumprelu
from jumprelu import errors, lm
from jumprelu.data import packing

TEXT = 'with open(path) as f:\n    return f.read()\n'


def _reference(model, tokens):
  """Returns the logits by the functions of `lm`, without padding."""
  ids = jnp.asarray(tokens)[None]
  return lm.logits(
      model.model,
      model.params,
      ids,
      positions=packing.positions(ids),
      segments=packing.segments(ids),
  )[0]


def test_bos_is_put_before_text_once(model):
  tokens = model.tokenize('import os')
  assert tokens[0] == packing.BOS and packing.BOS not in tokens[1:]
  np.testing.assert_array_equal(model.tokenize(tokens), tokens)
  np.testing.assert_array_equal(model.tokenize(tokens[1:]), tokens)
  assert 'BOS is put before every text' in repr(model)
  assert ''.join(model.pieces(tokens[1:])) == 'import os'


def test_logits_and_losses_do_not_depend_on_padding(model):
  tokens = model.tokenize(TEXT)
  expected = _reference(model, tokens)
  np.testing.assert_allclose(model.logits(TEXT), expected, atol=1e-4)
  log_p = jax.nn.log_softmax(expected)
  losses = -log_p[jnp.arange(len(tokens) - 1), tokens[1:]]
  np.testing.assert_allclose(model.loss(TEXT), losses, atol=1e-4)


def test_activations_are_those_of_the_taps(model):
  taps = [jumprelu.Tap(1, jumprelu.Site.MLP_OUT), jumprelu.Tap(2, 'resid_post')]
  values = model.activations(TEXT, taps)
  count = len(model.tokenize(TEXT))
  assert [x.shape for x in values.values()] == [(count, 128)] * 2


@pytest.mark.parametrize(
    'key', ['resid_post', 'mlp_out', 'attn_heads', 'transcoder']
)
def test_a_run_is_encode_and_decode_of_the_sites_activations(model, suite, key):
  sae = suite[key, 20]
  acts = model.run(TEXT, sae)
  reads = sae.reads
  values = model.activations(TEXT, reads.taps)
  inputs, targets = values[reads.input], values[reads.target]
  if reads.is_transcoder:
    gain = 1 + model.params['layer_2']['pre_ffw_norm']['scale']
    inputs = inputs / np.asarray(gain)
  latents = sae.encode(inputs[1:])
  np.testing.assert_allclose(acts.latents[1:], latents, rtol=1e-4, atol=1e-4)
  assert (acts.latents[1:] != 0).any()
  expected = sae.decode(latents)
  np.testing.assert_allclose(acts.reconstruction[1:], expected, atol=1e-3)
  np.testing.assert_allclose(
      acts.reconstruction + acts.error, targets, atol=1e-4
  )
  assert not acts.latents[0].any() and not acts.error[0].any()


def test_a_spliced_sae_changes_the_loss_and_its_error_restores_it(model, suite):
  for key in ('resid_post', 'transcoder'):
    sae = suite[key, 5]
    clean, spliced = model.loss(TEXT), model.with_sae(sae).loss(TEXT)
    assert np.abs(clean - spliced).max() > 1e-2
    kept = model.with_sae(sae, keep_error=True).loss(TEXT)
    np.testing.assert_allclose(kept, clean, atol=1e-4)


def test_text_that_does_not_fit_is_refused(model):
  with pytest.raises(errors.UserError, match='context of gemma2_nano'):
    model.logits([5] * (model.config.context + 1))
  with pytest.raises(errors.UserError, match='token id 99999999'):
    model.logits([99999999])


def test_an_sae_of_another_size_is_refused(model, suite):
  sae = suite['resid_post', 5]
  wrong = jumprelu.SAE(sae.released, path='a')
  wrong.released = sae.released.__class__(
      sae.released.sae,
      sae.params,
      sae.released.origin._replace(site='attn_heads', layer=9),
      {},
  )
  wrong.site, wrong.layer = 'attn_heads', 9
  with pytest.raises(errors.UserError, match='128 dimensions at layer_9'):
    model.run(TEXT, wrong)


def test_generation_equals_the_full_forward_pass(model):
  generated = model.generate('def ', tokens=24)
  tokens = [*generated.prompt, *generated.tokens]
  full = _reference(model, tokens)[len(generated.prompt) - 1 : -1]
  np.testing.assert_allclose(generated.logits, full, atol=1e-4)
  np.testing.assert_array_equal(full.argmax(-1), generated.tokens)
  assert generated.text.startswith('def ')


def test_samples_depend_on_the_seed_alone(model):
  options = {'tokens': 12, 'temperature': 1.0}
  first = model.generate('def ', seed=1, **options)
  again = model.generate('def ', seed=1, **options)
  other = model.generate('def ', seed=2, **options)
  np.testing.assert_array_equal(first.tokens, again.tokens)
  assert first.text != other.text


def test_a_spliced_generation_equals_the_spliced_forward_pass(model, suite):
  spliced = model.with_sae(suite['transcoder', 4])
  generated = spliced.generate('def ', tokens=8)
  full = spliced.logits([*generated.prompt, *generated.tokens])
  np.testing.assert_allclose(
      generated.logits, full[len(generated.prompt) - 1 : -1], atol=1e-3
  )
