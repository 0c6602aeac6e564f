"""Attribution with error nodes: planted shares, completeness, real ablations."""

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
  """The held-out rows, and one token of each to attribute."""
  found = forward()(jnp.asarray(measured.TOKENS))
  return found, *next(uniformity.draws(found))


@functools.cache
def logits():
  return target_metric.make(tiny.model(), _TARGET)


@functools.cache
def planted():
  """Members that leave out nothing, everything, and a known little."""
  little = np.random.default_rng(0).normal(size=16).astype(np.float32) * 2e-3
  site = 'resid_post'
  members = {
      'exact': small.make_exact(site),
      'zero': small.make_constant(site, np.zeros(16, np.float32)),
      'little': small.make_exact(site),
      'constant': small.make_constant(site, np.ones(16, np.float32)),
  }
  members['little'].params['b_dec'] = -little
  rows = text.Text(small.HELD_OUT, np.arange(len(measured.TOKENS)), 10, None)
  found = attribution.measure(
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
  return dict(zip(members, found.columns, strict=True))


def test_an_sae_that_leaves_nothing_out_has_no_error_nodes():
  row = planted()['exact']
  assert row['attribution_error_share'] == 0
  assert row['attribution_error'] == row['attribution_error_removed'] == 0
  assert row['attribution_latents'] != 0


@pytest.mark.parametrize('name', ['zero', 'constant'])
def test_an_sae_without_latents_is_all_error(name):
  row = planted()[name]
  assert row['attribution_error_share'] == 1
  assert row['attribution_latents'] == 0 and row['attribution_error'] != 0
  assert (row['attribution_affine'] == 0) == (name == 'zero')


def test_removing_a_small_error_does_what_the_gradient_says():
  row = planted()['little']
  assert 0 < row['attribution_error_share'] < 0.1
  # The loss is asked for, and the errors add to the clean activation.
  np.testing.assert_allclose(
      row['attribution_error_removed'], row['attribution_error'], rtol=0.03
  )


@pytest.mark.parametrize('name', measured.NAMES)
def test_effects_add_up_to_the_gradients_product_with_the_activation(name):
  row = measured.row(name)
  parts = [row[f'attribution_{p}'] for p in ('latents', 'affine', 'error')]
  assert min(map(abs, parts)) > 1e-4
  np.testing.assert_allclose(sum(parts), row['attribution_total'], atol=1e-5)


@functools.cache
def by_hand(name):
  """Effects in float64 with gradients through the whole model, by token."""
  _, target = measured.taps(name)

  @jax.jit
  def gradient(params, row, at, value):

    def number(value):
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

    return jax.grad(number)(value)

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


def test_shares_equal_one_backward_pass_a_token():
  name = 'random'
  found, row = by_hand(name), measured.row(name)
  _, _, errors, latents, effects = np.asarray(found).T
  assert row['tokens_attribution'] == len(found) > 20
  np.testing.assert_allclose(
      row['attribution_error_share'],
      errors.sum() / (errors.sum() + latents.sum()),
      rtol=1e-4,
  )
  np.testing.assert_allclose(
      row['attribution_error'], effects.mean(), rtol=1e-3, atol=1e-5
  )
  assert 0 < row['attribution_error_share_stderr'] < 0.2
  # And what removing the errors really does, from the tokens on.
  _, reconstruction, _ = measured.sae(name)
  clean, spliced = measured.clean()[0], measured.spliced(name, reconstruction)
  moved = []
  for i, at, *_ in found:
    correct = measured.TOKENS[i, at + 1]
    one, other = (x[i, at, correct] - x[i, at].mean() for x in (clean, spliced))
    moved.append(one - other)
  np.testing.assert_allclose(
      row['attribution_error_removed'], np.mean(moved), rtol=1e-3, atol=1e-4
  )


def test_linear_effects_of_single_latents_are_those_of_weakening_them():
  member, (given, at, drawn) = measured.members()[0], batch()
  clean, gradient = logits().gradient(given, at)
  values, keep = given.values[_TARGET], given.keep[..., None]
  np.testing.assert_allclose(logits().value(given, values, at), clean)
  x = jnp.where(keep, values, 0)
  latents = member.sae.encode(member.params, x)
  latents = jnp.where(keep, latents, 0)
  W_dec, share = member.params['W_dec'], 0.02
  strongest = np.asarray(latents.sum((0, 1))).argsort()[-3:]
  for j in strongest:
    part = latents[..., j, None] * W_dec[j][None, None]
    moved = [
        np.asarray(logits().value(given, x + sign * share * part, at))
        for sign in (1, -1)
    ]
    real = (moved[0] - moved[1]) / (2 * share)
    linear = np.asarray((part * gradient).sum((1, 2)))
    some = np.asarray(drawn)
    assert np.abs(linear[some]).max() > 0.05
    np.testing.assert_allclose(real[some], linear[some], rtol=0.05, atol=0.01)


def test_a_gradient_is_zero_where_nothing_is_spliced_or_comes_later():
  given, at, _ = batch()
  _, gradient = logits().gradient(given, at)
  size = np.abs(np.asarray(gradient)).sum(-1)
  later = np.arange(size.shape[1])[None] > np.asarray(at)[:, None]
  assert (size[later] == 0).all() and (size[~measured.KEEP] == 0).all()
  assert (size > 0).any()


def test_halves_of_the_sequences_merge_to_the_whole():
  rng = np.random.default_rng(0)
  effects = attribution.Effects(*rng.random((8, 10)))
  parts = [
      attribution.to_counts([attribution.Effects(*(x[s] for x in effects))])
      for s in (slice(0, 3), slice(3, 10))
  ]
  whole, both = attribution.to_counts([effects]), parts[0].merge(parts[1])
  for key, value in attribution.compute(whole).items():
    np.testing.assert_allclose(attribution.compute(both)[key], value)
