"""Tests of effects on logits, attributions and displays."""

import numpy as np
import pytest

from jumprelu import errors, lm
from jumprelu.api import results
from jumprelu.lm import logit_effects

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


@pytest.mark.parametrize('site', SITES)
def test_attributions_add_up_and_predict_small_changes(model, suite, site):
  acts = model.run(TEXT, suite[site, 20])
  made = model.attribute(acts, target='read', position=-5)
  affine = acts.sae.decode(
      np.zeros((1, acts.sae.width), np.float32),
      np.zeros((1, acts.sae.sae.d_in), np.float32),
  )
  assert affine.shape == (1, acts.sae.sae.d_out)
  # The parts of the kept targets have the effect of the targets themselves.
  _, gradient = results.gradient_at(
      model.model.config,
      model.params,
      np.asarray(acts.tokens)[None],
      model.tokenizer.encode('read')[0],
      made.position,
      tap=acts.sae.reads.target,
  )
  along = (np.asarray(gradient[0]) * acts.targets).sum(-1)
  assert made.total == pytest.approx(along[acts.keep].sum(), rel=1e-3, abs=1e-3)
  assert np.isfinite(made.effects).all() and made.effects[1:].any()
  assert not made.effects[made.position + 1 :].any()


def test_an_attribution_is_the_slope_of_the_metric(model, suite):
  sae = suite['resid_post', 20]
  acts = model.run(TEXT, sae)
  made = model.attribute(acts, target='read', position=-5)
  token, latent, effect = made.top(1)[0]
  inside = made.effects[made.effects != 0]
  assert abs(effect) == np.abs(inside).max()

  def metric(scale):
    """Returns the metric with the latent's contribution scaled."""
    import jax.numpy as jnp

    from jumprelu.data import packing
    from jumprelu.lm import gemma, loss

    ids = jnp.asarray(acts.tokens)[None]
    shift = np.zeros((1, len(acts.tokens), 128), np.float32)
    shift[0, token] = scale * acts.latents[token, latent] * sae.W_dec[latent]
    hidden = loss.hidden(
        model.model.config,
        model.params,
        ids,
        positions=packing.positions(ids),
        segments=packing.segments(ids),
        splice={sae.reads.target: lambda x: x + shift},
    )
    logits = gemma.unembed(
        model.model.config, model.params, hidden[0, made.position]
    )
    target = model.tokenizer.encode('read')[0]
    return float(logits[target] - logits.mean())

  assert metric(0.0) == pytest.approx(made.metric, abs=1e-4)
  slope = (metric(0.05) - metric(-0.05)) / 0.1
  assert slope == pytest.approx(effect, rel=0.05, abs=2e-3)


def test_the_largest_latents_are_sorted_and_shown(model, suite):
  acts = model.run(TEXT, suite['resid_post', 20])
  top = acts.top(3)
  assert len(top) == len(acts.tokens) and top[0] == []
  for row, values in zip(top.rows, acts.latents, strict=True):
    shown = [a.value for a in row]
    expected = np.sort(values[values != 0])[::-1][:3]
    np.testing.assert_allclose(shown, expected)
  assert "'with'" in repr(top)


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
