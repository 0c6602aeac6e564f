"""Tests of language models for interactive use."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jumprelu
from jumprelu import errors, lm
from jumprelu.api import programs
from jumprelu.data import packing

TEXT = 'with open(path) as f:\n    return f.read()\n'


def _reference(model, tokens):
  """Returns the logits by the functions of `lm`, without padding."""
  ids = jnp.asarray(tokens)[None]

  @jax.jit
  def logits(params):
    return lm.logits(
        model.model,
        params,
        ids,
        positions=packing.positions(ids),
        segments=packing.segments(ids),
    )[0]

  return np.asarray(logits(model.params))


def test_bos_is_put_before_text_once(model):
  tokens = model.tokenize('import os')
  assert tokens[0] == packing.BOS and packing.BOS not in tokens[1:]
  np.testing.assert_array_equal(model.tokenize(tokens), tokens)
  np.testing.assert_array_equal(model.tokenize(tokens[1:]), tokens)
  assert 'BOS is put before every text' in repr(model)
  assert ''.join(model.pieces(tokens[1:])) == 'import os'
  assert repr(model.tokenizer) == 'Tokenizer(4,096 pieces)'


def test_logits_and_losses_do_not_depend_on_padding(model):
  tokens = model.tokenize(TEXT)
  expected = _reference(model, tokens)
  np.testing.assert_allclose(model.logits(TEXT), expected, atol=1e-4)
  log_p = jax.nn.log_softmax(expected)
  losses = -log_p[jnp.arange(len(tokens) - 1), tokens[1:]]
  np.testing.assert_allclose(model.loss(TEXT), losses, atol=1e-4)
  ids = jnp.asarray(tokens)[None]
  expected = lm.losses(
      model.model,
      model.params,
      ids,
      positions=packing.positions(ids),
      segments=packing.segments(ids),
  )[0, :-1]
  np.testing.assert_allclose(model.loss(TEXT), expected, atol=1e-5)


def test_activations_are_those_of_the_taps(model):
  taps = [jumprelu.Tap(1, jumprelu.Site.MLP_OUT), jumprelu.Tap(2, 'resid_post')]
  values = model.activations(TEXT, taps)
  count = len(model.tokenize(TEXT))
  assert [x.shape for x in values.values()] == [(count, 128)] * 2
  for same in ((1, 'mlp_out'), 'layer_1.mlp_out', [(1, 'mlp_out')]):
    (value,) = model.activations(TEXT, same).values()
    np.testing.assert_allclose(value, values[taps[0]], atol=1e-5)


@pytest.mark.parametrize(
    'taps, message',
    [
        ('resid_post', 'tap .resid_post.: pass jumprelu.Tap'),
        ((2, 'residual'), 'the sites resid_post'),
        (
            (4, 'resid_post'),
            'layer_4.resid_post: gemma2_nano has layers 0 to 3',
        ),
        ([], 'taps=..: pass jumprelu.Tap'),
        ([7], 'tap 7: pass'),
    ],
)
def test_other_taps_are_refused(model, taps, message):
  with pytest.raises(errors.UserError, match=message):
    model.activations(TEXT, taps)


def test_only_one_sae_is_spliced(model, suite):
  spliced = model.with_sae(suite['mlp_out'])
  with pytest.raises(errors.UserError, match='only one can be spliced'):
    spliced.with_sae(suite['attn_heads'])


def test_other_precisions_are_refused():
  with pytest.raises(errors.UserError, match="dtype='int8': use float32 or"):
    jumprelu.load_lm('gemma2_nano', dtype='int8')


@pytest.mark.parametrize(
    'key', ['resid_post', 'mlp_out', 'attn_heads', 'transcoder']
)
def test_a_run_is_encode_and_decode_of_the_sites_activations(model, suite, key):
  sae = suite[key, 20]
  acts = model.run(TEXT, sae)
  np.testing.assert_allclose(acts.loss, model.loss(TEXT), atol=1e-5)
  # The public functions on the inputs that are shown.
  np.testing.assert_allclose(
      sae.encode(acts.inputs)[1:], acts.latents[1:], rtol=1e-4, atol=1e-4
  )
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
  with pytest.raises(errors.UserError, match=r'context of .*\[:255\]'):
    model.logits([5] * (model.config.context + 1))
  with pytest.raises(errors.UserError, match='the text is empty'):
    model.loss('')
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


# The sliding window of the nano model has 64 tokens.
@pytest.mark.parametrize(
    'text, prompt, tokens',
    [('def ', 3, 24), ('class A:\n', 5, 80), ('import os\n' * 60, 60, 12)],
)
def test_generation_equals_the_full_pass_across_the_windows_edge(
    model, text, prompt, tokens
):
  ids = model.tokenize(text)[:prompt]
  generated = model.generate(ids, tokens=tokens)
  np.testing.assert_array_equal(generated.prompt, ids)
  assert len(generated.tokens) == tokens
  if tokens > 24:
    assert prompt < model.config.window < prompt + tokens
  everything = [*generated.prompt, *generated.tokens]
  full = _reference(model, everything)[prompt - 1 : -1]
  np.testing.assert_allclose(generated.logits, full, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(full.argmax(-1), generated.tokens)
  assert generated.text.startswith(model.tokenizer.decode(ids.tolist()))


def test_generation_ends_with_eos(model):
  # With these weights EOS is the likeliest token.
  embedding = model.params['embedder']['input_embedding']
  row = jnp.ones_like(embedding[packing.EOS])
  params = model.params | {
      'embedder': {'input_embedding': embedding.at[packing.EOS].set(row)},
      'final_norm': {'scale': jnp.full(model.config.d_model, 1e3)},
  }
  changed = dataclasses.replace(model.model, params=params)
  changed = jumprelu.LanguageModel(changed, model.tokenizer)
  ends = [changed.generate(text, tokens=20) for text in ('def ', 'import ')]
  assert any(len(made.tokens) < 20 for made in ends)
  for made in ends:
    if len(made.tokens) < 20:
      assert made.tokens[-1] == packing.EOS
      assert len(made.logits) == len(made.tokens)
    assert packing.EOS not in made.tokens[:-1]


def test_other_lengths_need_no_other_program(model):
  long = model.generate('def ', tokens=16, temperature=1.0, seed=3)
  compiled = programs.generate._cache_size()
  short = model.generate('def ', tokens=9, temperature=1.0, seed=3)
  assert programs.generate._cache_size() == compiled
  np.testing.assert_array_equal(short.tokens, long.tokens[:9])


def test_requests_that_cannot_be_generated_are_refused(model):
  context = model.config.context
  for text, options, message in (
      ('', {}, 'the text is empty'),
      ([], {}, 'the text is empty'),
      ('def ', {'tokens': 0}, 'generate: tokens=0, but 1 is the least'),
      (
          'def ',
          {'tokens': context},
          f'3 tokens .* tokens={context}, .* {context}',
      ),
      ([5] * (context + 1), {}, f'the context of .* has {context}'),
      ('def ', {'temperature': -1.0}, 'temperature=-1.0, but 0'),
      (np.array(['def ', 'class ']), {}, 'pass one text as a str'),
      (np.array([[2, 5]]), {}, 'pass one text as a str'),
  ):
    with pytest.raises(errors.UserError, match=message) as error:
      model.generate(text, **options)
    assert '\n' not in str(error.value)


def test_bos_alone_is_a_prompt(model):
  assert len(model.generate([model.bos], tokens=3).tokens) == 3
  assert model.loss([model.bos]).shape == (0,)
  assert model.logits([model.bos]).shape == (1, model.config.vocab)


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
