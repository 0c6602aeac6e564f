"""Attribution with error nodes: planted members and real ablations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import lm
from jumprelu.data import packing
from jumprelu.evals import corpus_passes, jitted, text
from jumprelu.evals.measures import (
    attribution,
    config,
    context,
    target_metric,
    uniformity,
)
from tests import small_evaluation as small
from tests.evals import measured
from tests.lm import tiny

_TARGET = measured.taps('random')[1]


@functools.cache
def forward():
  return jitted.forward(tiny.model(), [_TARGET])


@functools.cache
def batch():
  """Returns the batch of held-out rows, and one drawn token of each row."""
  rows = forward()(jnp.asarray(measured.TOKENS))
  return rows, *next(uniformity.draws(rows))


@functools.cache
def logits():
  return target_metric.make(tiny.model(), _TARGET)


@functools.cache
def planted():
  """Returns the columns of members with planted reconstruction errors.

  The error is zero, the whole target, a small vector, or the target minus a
  constant.
  """
  small_error = (
      np.random.default_rng(0).normal(size=16).astype(np.float32) * 2e-3
  )
  site = 'resid_post'
  members = {
      'exact': small.make_exact(site),
      'zero': small.make_constant(site, np.zeros(16, np.float32)),
      'little': small.make_exact(site),
      'constant': small.make_constant(site, np.ones(16, np.float32)),
  }
  members['little'].params['b_dec'] = -small_error
  rows = text.Text(small.HELD_OUT, np.arange(len(measured.TOKENS)), 10, None)
  result = attribution.measure(
      context.Context(
          model=tiny.model(),
          members=[
              corpus_passes.place(
                  m.sae, m.params, lm.Reads((_TARGET,), (_TARGET,))
              )
              for m in members.values()
          ],
          names=list(members),
          kinds=[],
          firing_frequency=[],
          means={_TARGET: np.zeros(16)},
          forward=forward(),
          text=rows,
          settings=config.Config(attribution=config.Attribution(metric='loss')),
      )
  )
  return dict(zip(members, result.columns, strict=True))


def test_an_exact_sae_has_an_error_share_of_zero():
  row = planted()['exact']
  assert row['attribution_error_share'] == 0
  assert row['attribution_error'] == row['attribution_error_removed'] == 0
  assert row['attribution_latents'] != 0


@pytest.mark.parametrize('name', ['zero', 'constant'])
def test_an_sae_with_silent_latents_has_an_error_share_of_one(name):
  row = planted()[name]
  assert row['attribution_error_share'] == 1
  assert row['attribution_latents'] == 0 and row['attribution_error'] != 0
  assert (row['attribution_affine'] == 0) == (name == 'zero')


def test_removing_a_small_error_agrees_with_the_gradient():
  row = planted()['little']
  assert 0 < row['attribution_error_share'] < 0.1
  # The metric is the loss.
  np.testing.assert_allclose(
      row['attribution_error_removed'], row['attribution_error'], rtol=0.03
  )


@pytest.mark.parametrize('name', measured.NAMES)
def test_effects_add_up_to_the_total(name):
  row = measured.row(name)
  parts = [row[f'attribution_{p}'] for p in ('latents', 'affine', 'error')]
  assert min(map(abs, parts)) > 1e-4
  np.testing.assert_allclose(sum(parts), row['attribution_total'], atol=1e-5)


@functools.cache
def by_hand(name):
  """Returns effects by token in float64, with gradients of the whole model."""
  _, target = measured.taps(name)

  @jax.jit
  def gradient(params, row, at, value):

    def metric(value):
      hidden, _ = measured.gemma.run(
          tiny.CONFIG,
          params,
          row,
          positions=packing.positions(row),
          segments=packing.segments(row),
          splice={target: lambda x: value},
          final_norm=True,
      )
      logits = measured.gemma.unembed(tiny.CONFIG, params, hidden[0, at])
      return logits[row[0, at + 1]] - logits.mean()

    return jax.grad(metric)(value)

  latents, reconstruction, x = measured.sae(name)
  W_dec = measured.members()[measured.NAMES.index(name)].params['W_dec']
  tokens = jnp.asarray(measured.TOKENS)
  scored = jnp.asarray(np.pad(measured.scored(), ((0, 0), (0, 1))))
  places, drawn = uniformity.draw(tokens, scored, 4)
  rows = []
  for i, at in np.argwhere(np.asarray(drawn)):
    at = int(places[i, at])
    value = jnp.asarray(x[i][None], jnp.float32)
    g = gradient(tiny.model().params, tokens[i][None], at, value)
    g = np.asarray(g, np.float64)[0]
    kept = measured.KEEP[i]
    error = ((x[i] - reconstruction[i]) * g).sum(-1)[kept]
    parts = (latents[i] * (g @ np.asarray(W_dec, np.float64).T))[kept]
    rows.append((i, at, np.abs(error).sum(), np.abs(parts).sum(), error.sum()))
  return rows


def test_shares_equal_one_backward_pass_per_token():
  name = 'random'
  tokens, row = by_hand(name), measured.row(name)
  _, _, errors, latents, effects = np.asarray(tokens).T
  assert row['tokens_attribution'] == len(tokens) > 20
  np.testing.assert_allclose(
      row['attribution_error_share'],
      errors.sum() / (errors.sum() + latents.sum()),
      rtol=1e-4,
  )
  np.testing.assert_allclose(
      row['attribution_error'], effects.mean(), rtol=1e-3, atol=1e-5
  )
  assert 0 < row['attribution_error_share_stderr'] < 0.2
  # The actual effect of removing all errors, from full passes.
  _, reconstruction, _ = measured.sae(name)
  clean, spliced = measured.clean()[0], measured.spliced(name, reconstruction)
  moved = []
  for i, at, *_ in tokens:
    correct = measured.TOKENS[i, at + 1]
    before, after = (
        x[i, at, correct] - x[i, at].mean() for x in (clean, spliced)
    )
    moved.append(before - after)
  np.testing.assert_allclose(
      row['attribution_error_removed'], np.mean(moved), rtol=1e-3, atol=1e-4
  )


def test_linear_effects_of_latents_equal_finite_differences():
  member, (clean_batch, at, drawn) = measured.members()[0], batch()
  clean, gradient = logits().gradient(clean_batch, at)
  values, keep = clean_batch.values[_TARGET], clean_batch.keep[..., None]
  np.testing.assert_allclose(logits().value(clean_batch, values, at), clean)
  x = jnp.where(keep, values, 0)
  latents = member.sae.encode(member.params, x)
  latents = jnp.where(keep, latents, 0)
  W_dec, share = member.params['W_dec'], 0.02
  strongest = np.asarray(latents.sum((0, 1))).argsort()[-3:]
  for j in strongest:
    part = latents[..., j, None] * W_dec[j][None, None]
    moved = [
        np.asarray(logits().value(clean_batch, x + sign * share * part, at))
        for sign in (1, -1)
    ]
    real = (moved[0] - moved[1]) / (2 * share)
    linear = np.asarray((part * gradient).sum((1, 2)))
    mask = np.asarray(drawn)
    assert np.abs(linear[mask]).max() > 0.05
    np.testing.assert_allclose(real[mask], linear[mask], rtol=0.05, atol=0.01)


def test_the_gradient_is_zero_at_later_and_not_kept_positions():
  clean_batch, at, _ = batch()
  _, gradient = logits().gradient(clean_batch, at)
  size = np.abs(np.asarray(gradient)).sum(-1)
  later = np.arange(size.shape[1])[None] > np.asarray(at)[:, None]
  assert (size[later] == 0).all() and (size[~measured.KEEP] == 0).all()
  assert (size > 0).any()


def test_merged_halves_of_the_sequences_equal_the_whole():
  rng = np.random.default_rng(0)
  effects = attribution.Effects(*rng.random((8, 10)))
  parts = [
      attribution.to_counts([attribution.Effects(*(x[s] for x in effects))])
      for s in (slice(0, 3), slice(3, 10))
  ]
  whole, both = attribution.to_counts([effects]), parts[0].merge(parts[1])
  for key, value in attribution.compute(whole).items():
    np.testing.assert_allclose(attribution.compute(both)[key], value)
