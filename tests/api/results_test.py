"""Tests of effects on logits, attributions and displays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, lm
from jumprelu.api import dictionary
from jumprelu.data import packing
from jumprelu.lm import gemma, logit_effects

TEXT = 'with open(path) as f:\n    return f.read()\n'
SITES = ('resid_post', 'mlp_out', 'attn_heads', 'transcoder')


def _direct(model, acts, term):
  """Returns the contribution of a term at the target to the next logits."""
  scale = 1 + np.asarray(model.params['final_norm']['scale'], np.float64)
  residual = acts._residual.astype(np.float64)
  rms = np.sqrt(np.square(residual).mean(-1, keepdims=True) + 1e-6)
  if acts.sae.site == 'attn_heads':
    layer = model.params['layer_2']
    weights = np.asarray(layer['attn']['attn_vec_einsum']['w'], np.float64)
    weights = weights.reshape(-1, weights.shape[-1])
    out = acts.targets @ weights
    norm = np.sqrt(np.square(out).mean(-1, keepdims=True) + 1e-6)
    post = 1 + np.asarray(layer['post_attention_norm']['scale'], np.float64)
    term = (term @ weights) / norm * post
  embedding = np.asarray(
      model.params['embedder']['input_embedding'], np.float64
  )
  following = embedding[acts.tokens[1:]]
  return ((term / rms * scale)[:-1] * following).sum(-1)


@pytest.mark.parametrize('site', SITES)
def test_effects_add_up_to_the_effect_of_all_latents(model, suite, site):
  acts = model.run(TEXT, suite[site, 20])
  term = acts.latents.astype(np.float64) @ acts.sae.W_dec
  expected = _direct(model, acts, term)
  np.testing.assert_allclose(
      acts.effects[:-1].sum(-1), expected, rtol=1e-3, atol=1e-3
  )
  assert np.abs(expected).max() > 0.05
  assert np.isnan(acts.effects[-1][acts.latents[-1] != 0]).all()


def test_effects_of_the_whole_residual_stream_are_the_logits(model, suite):
  acts = model.run(TEXT, suite['resid_post', 20])
  logits = _direct(model, acts, acts._residual)
  cap = model.config.logits_softcap
  actual = acts.logits[np.arange(len(acts.tokens) - 1), acts.tokens[1:]]
  np.testing.assert_allclose(cap * np.tanh(logits / cap), actual, atol=1e-3)


def _metric(model, acts, *, target, position):
  """Returns the metric as a function of the parts of the kept targets."""
  ids = jnp.asarray(acts.tokens)[None]
  keep = jnp.asarray(acts.keep)[:, None]
  sae, token = acts.sae, model.tokenizer.encode(target)[0]
  affine = np.zeros_like(acts.reconstruction)
  affine[acts.keep] = (acts.reconstruction - acts.latents @ sae.W_dec)[
      acts.keep
  ]

  def metric(latents, biases, errors):
    value = latents @ sae.W_dec + biases[:, None] * affine
    value += errors[:, None] * acts.error
    hidden, _ = gemma.run(
        model.config,
        model.params,
        ids,
        positions=jnp.asarray(packing.positions(ids)),
        segments=jnp.asarray(packing.segments(ids)),
        final_norm=True,
        splice={sae.reads.target: lambda x: jnp.where(keep, value[None], x)},
    )
    logits = gemma.unembed(model.config, model.params, hidden[0, position])
    return logits[token] - logits.mean()

  return jax.jit(metric)


@pytest.mark.parametrize(
    'site',
    [
        pytest.param(s, marks=[pytest.mark.slow] * (s in SITES[1:3]))
        for s in SITES
    ],
)
def test_attributions_equal_the_gradients_of_a_spliced_pass(model, suite, site):
  acts = model.run(TEXT, suite[site, 20])
  made = model.attribute(acts, target='read', position=-5)
  metric = _metric(model, acts, target='read', position=len(acts.tokens) - 5)
  ones = jnp.ones(len(acts.tokens))
  at = jnp.asarray(acts.latents), ones, ones
  value, gradients = jax.value_and_grad(metric, argnums=(0, 1, 2))(*at)
  assert made.metric == pytest.approx(float(value), abs=1e-4)
  parts = made.effects, made.affine, made.error
  for ours, x, gradient in zip(parts, at, gradients, strict=True):
    assert np.abs(ours).max() > 0.01
    np.testing.assert_allclose(ours, x * gradient, rtol=1e-3, atol=1e-4)
  # All activations at the site are scaled together.
  _, slope = jax.jvp(
      lambda scale: metric(*(scale * x for x in at)), (1.0,), (1.0,)
  )
  assert made.total == pytest.approx(float(slope), rel=1e-3, abs=1e-3)
  parts = sum(float(part.sum()) for part in parts)
  assert made.total == pytest.approx(parts, abs=1e-5)
  # The norm after the heads does not depend on their scale.
  assert site == 'attn_heads' or abs(made.total) > 0.1
  # BOS and the tokens after the position have no effect.
  assert not made.effects[0].any() and not made.effects[-4:].any()


def test_the_largest_attribution_predicts_a_small_change(model, suite):
  sae = suite['resid_post', 20]
  acts = model.run(TEXT, sae)
  made = model.attribute(acts, target='read', position=-5)
  token, latent, effect = made.top(1)[0]
  start = f'Effect(token={token}, latent={latent}, effect='
  assert repr(made.top(1)[0]) == f'{start}{effect:+.2f})'
  assert abs(effect) == np.abs(made.effects).max()
  metric = _metric(model, acts, target='read', position=len(acts.tokens) - 5)
  ones = jnp.ones(len(acts.tokens))

  def scaled(factor):
    latents = jnp.asarray(acts.latents).at[token, latent].multiply(factor)
    return float(metric(latents, ones, ones))

  assert scaled(1.0) == pytest.approx(made.metric, abs=1e-4)
  slope = (scaled(1.05) - scaled(0.95)) / 0.1
  assert slope == pytest.approx(effect, rel=0.05, abs=2e-3)


def test_the_target_may_follow_the_last_token_of_a_full_context(model, suite):
  acts = model.run([5] * (model.config.context - 1), suite['mlp_out'])
  made = model.attribute(acts, target=7)
  logits = acts.logits[-1]
  assert made.metric == pytest.approx(logits[7] - logits.mean(), abs=1e-4)


def test_attributions_of_other_things_are_refused(model, suite):
  sae = suite['resid_post', 20]
  with pytest.raises(errors.UserError, match='sae is a Suite: pass one SAE'):
    dictionary.check_fit(suite, model.config)
  acts = model.run(TEXT, sae)
  with pytest.raises(errors.UserError, match='position 99: .* 0 to 15'):
    model.attribute(acts, target='read', position=99)
  with pytest.raises(errors.UserError, match='ids must be from 1 to'):
    model.attribute(acts, target=10**6)
  with pytest.raises(errors.UserError, match='without SAEs and edits'):
    model.with_sae(sae).attribute(acts, target='read')
  with pytest.raises(errors.UserError, match='pass sae='):
    model.attribute(TEXT, target='read')


def test_the_largest_latents_are_sorted_and_shown(model, suite):
  acts = model.run(TEXT, suite['resid_post', 20])
  top = acts.top(3)
  assert len(top) == len(acts.tokens) and top[0] == []
  for row, values in zip(top.rows, acts.latents, strict=True):
    shown = [a.value for a in row]
    expected = np.sort(values[values != 0])[::-1][:3]
    np.testing.assert_allclose(shown, expected)
  assert "'with'" in repr(top)
  first = top[1][0]
  start = f'Active(latent={first.latent}, value={first.value:.2f}, effect='
  assert repr(first) == f'{start}{first.effect:+.2f})'


def test_html_escapes_text(model, suite):
  acts = model.run('<script>alert(1)</script>', suite['resid_post', 20])
  assert '<script' not in acts._repr_html_()


def test_a_target_of_several_tokens_is_refused(model, suite):
  acts = model.run(TEXT, suite['resid_post', 20])
  with pytest.raises(errors.UserError, match='choose one'):
    model.attribute(acts, target='a long text')


def test_rows_of_heads_are_projected(model):
  reads = lm.make_reads('attn_heads', 1)
  rows = np.random.default_rng(0).normal(size=(2, 128)).astype(np.float32)
  assert logit_effects.written(model.model, reads, rows).shape == (2, 128)
