"""Every result of the live model is that of the public API."""

import dataclasses

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu import saes as variants
from jumprelu.api import dictionary, edits, programs
from jumprelu.data import packing
from jumprelu.explore.serve import fields, live
from jumprelu.explore.serve import programs as passes
from jumprelu.release.formats import record
from tests.api import conftest as api
from tests.explore.serve import conftest

TEXT = 'with open(path) as f:\n    return f.'
SITES = ['resid_post', 'mlp_out', 'attn_heads', 'transcoder']


def path_of(saes, site):
  return next(path for path, sae in saes.items() if sae.site == site)


def dense(result, width):
  out = np.zeros((len(result['tokens']), width), np.float32)
  at = np.repeat(np.arange(len(out)), np.diff(result['start']))
  out[at, result['latents']] = result['values']
  return out


@pytest.mark.parametrize('site', SITES)
def test_activations_are_those_of_encode(live_model, model, saes, site):
  path = path_of(saes, site)
  acts = model.run(TEXT, saes[path])
  result = live_model.activations(TEXT, member=path)
  actual = dense(result, acts.sae.width)
  expected = saes[path].encode(acts.inputs)
  assert np.count_nonzero(actual) > 10
  np.testing.assert_allclose(actual[1:], expected[1:], rtol=1e-5, atol=1e-5)
  assert not actual[0].any()
  assert [t['piece'] for t in result['tokens']] == acts.pieces
  assert [t['id'] for t in result['tokens']] == acts.tokens.tolist()
  for start, end in zip(result['start'], result['start'][1:], strict=False):
    values = result['values'][start:end]
    assert values == sorted(values, reverse=True)


def test_a_run_has_the_largest_latents_of_every_member(live_model, model, saes):
  result = live_model.run(TEXT, members=None, k=3)
  assert [m['id'] for m in result['members']] == list(saes)
  for member in result['members']:
    acts = model.run(TEXT, saes[member['id']])
    assert member['l0'] == acts.l0.tolist()
    error = np.linalg.norm(acts.error, axis=-1)
    error /= np.linalg.norm(acts.targets, axis=-1)
    np.testing.assert_allclose(member['error'], error, rtol=1e-4)
    top = acts.top(3)
    for i in range(len(acts.tokens)):
      assert member['latents'][i] == [active.latent for active in top[i]]
      np.testing.assert_allclose(
          member['values'][i], [active.value for active in top[i]], rtol=1e-5
      )
  assert result['loss'][0] is None
  np.testing.assert_allclose(result['loss'][1:], model.loss(TEXT), rtol=1e-4)


def test_next_tokens_are_the_likeliest(live_model, model):
  logits = model.logits(TEXT)[-1].astype(np.float64)
  result = live_model.run(TEXT, members=None, k=1)['next']
  order = np.argsort(-logits)[: passes.NEXT]
  assert [token['id'] for token in result] == order.tolist()
  assert [token['piece'] for token in result] == model.pieces(order)
  shares = np.exp(logits - logits.max())
  shares /= shares.sum()
  for token in result:
    assert token['logit'] == pytest.approx(logits[token['id']], rel=1e-4)
    assert token['probability'] == pytest.approx(shares[token['id']], rel=1e-3)


def test_a_run_of_some_members_keeps_their_order(live_model, saes):
  wanted = list(saes)[3:1:-1]
  result = live_model.run(TEXT, members=wanted, k=1)
  assert [member['id'] for member in result['members']] == wanted


@pytest.mark.parametrize('by', ['largest', 'mean', 'count'])
def test_a_ranking_sorts_the_latents_of_a_text(live_model, model, saes, by):
  path = path_of(saes, 'mlp_out')
  latents = model.run(TEXT, saes[path]).latents[1:]
  count = (latents > 0).sum(0)
  columns = {
      'largest': latents.max(0),
      'mean': latents.sum(0) / np.maximum(count, 1),
      'count': count,
  }
  result = live_model.rank(TEXT, member=path, k=5, by=by)['latents']
  ranks = [columns[by][row['latent']] for row in result]
  np.testing.assert_allclose(ranks, np.sort(columns[by])[::-1][:5], rtol=1e-5)
  for row in result:
    i = row['latent']
    assert row['largest'] == pytest.approx(columns['largest'][i], rel=1e-5)
    assert row['mean'] == pytest.approx(columns['mean'][i], rel=1e-5)
    assert row['count'] == count[i]
    assert row['at'] == latents[:, i].argmax() + 1


def check_logits(live_model, model, saes, site):
  path = path_of(saes, site)
  result = live_model.logits(TEXT, member=path, keep_error=False)
  spliced = model.with_sae(saes[path])
  for name, lang in (('clean', model), ('spliced', spliced)):
    logits = lang.logits(TEXT)[-1]
    ids = [token['id'] for token in result[name]]
    assert ids == np.argsort(-logits)[: passes.NEXT].tolist()
    np.testing.assert_allclose(
        [token['logit'] for token in result[name]], logits[ids], rtol=1e-3
    )
    loss = lang.loss(TEXT).mean()
    assert result['loss'][name] == pytest.approx(loss, rel=1e-4)
  assert result['loss']['clean'] != result['loss']['spliced']


def check_attribution(live_model, model, saes, site):
  path = path_of(saes, site)
  made = model.attribute(TEXT, target='read', sae=saes[path])
  result = live_model.attribution(TEXT, member=path, target='read')
  assert result['target'] == {'id': model.token_id('read'), 'piece': 'read'}
  logit = model.logits(TEXT)[-1, result['target']['id']]
  assert result['logit'] == pytest.approx(logit, rel=1e-4)
  scale = float(np.abs(made.effects).max())
  effects = [entry['attribution'] for entry in result['entries']]
  assert len(effects) == min(50, np.count_nonzero(made.effects))
  assert np.abs(effects[0]) == pytest.approx(scale, rel=1e-4)
  sizes = np.abs(effects)
  assert (sizes[:-1] >= sizes[1:]).all()
  for entry in result['entries']:
    at = entry['position'], entry['latent']
    assert entry['attribution'] == pytest.approx(
        made.effects[at], rel=1e-3, abs=1e-4 * scale
    )
  np.testing.assert_allclose(
      result['error'], made.error, rtol=1e-3, atol=1e-4 * scale
  )
  assert result['bias'] == pytest.approx(made.affine.sum(), rel=1e-3)
  assert result['total'] == pytest.approx(made.total, rel=1e-3, abs=1e-3)


def check_generation(live_model, model, saes, site):
  path = path_of(saes, site)
  lang = model.with_sae(saes[path])
  expected = lang.generate(TEXT, tokens=6).tokens
  result = live_model.generate(
      TEXT, tokens=6, temperature=0.0, seed=0, member=path
  )
  assert [token['id'] for token in result['tokens']] == expected.tolist()


@pytest.mark.parametrize('check', [check_logits, check_attribution])
def test_results_with_an_sae_are_those_of_the_api(
    live_model, model, saes, check
):
  check(live_model, model, saes, 'resid_post')


@pytest.mark.slow
@pytest.mark.parametrize('site', SITES)
@pytest.mark.parametrize(
    'check', [check_logits, check_attribution, check_generation]
)
def test_results_at_every_site_are_those_of_the_api(
    live_model, model, saes, check, site
):
  check(live_model, model, saes, site)


def test_with_the_error_kept_logits_are_unchanged(live_model, saes):
  path = path_of(saes, 'resid_post')
  result = live_model.logits(TEXT, member=path, keep_error=True)
  assert result['clean'] == result['spliced']


def test_without_a_target_the_likeliest_token_is_explained(live_model, saes):
  path = path_of(saes, 'resid_post')
  result = live_model.attribution(TEXT, member=path, target=None)
  likeliest = live_model.run(TEXT, members=None, k=1)['next'][0]
  assert result['target']['id'] == likeliest['id']
  assert result['logit'] == pytest.approx(likeliest['logit'], rel=1e-5)


def test_steering_is_that_of_the_api(live_model, model, saes):
  path, options = path_of(saes, 'resid_post'), {'temperature': 0.0, 'seed': 0}
  changes = [fields.Edit(5, 'add', 30.0), fields.Edit(5, 'scale', 2.0)]
  result = live_model.steer(
      TEXT, member=path, edits=changes, tokens=5, **options
  )
  same = [
      edits.Edit(saes[path], latent, op=op, value=value)
      for latent, op, value in changes
  ]
  expected = model.generate(TEXT, tokens=5, edits=same).tokens
  assert [token['id'] for token in result['edited']] == expected.tolist()
  plain = model.generate(TEXT, tokens=5).tokens
  assert [token['id'] for token in result['plain']] == plain.tolist()
  assert expected.tolist() != plain.tolist()
  with pytest.raises(fields.Refused, match='latent 9999: .* has 0 to 63'):
    wrong = [fields.Edit(9999, 'add', 1.0)]
    live_model.steer(TEXT, member=path, edits=wrong, tokens=5, **options)


def test_generation_is_that_of_the_api(live_model, model):
  for temperature, seed in ((0.0, 0), (1.5, 3), (1.5, 4)):
    expected = model.generate(
        TEXT, tokens=live.NEW_TOKENS, temperature=temperature, seed=seed
    )
    result = live_model.generate(
        TEXT, tokens=5, temperature=temperature, seed=seed, member=None
    )['tokens']
    assert [token['id'] for token in result] == expected.tokens[:5].tolist()


def fake_generation(monkeypatch, ids):
  """Makes the program of generation return these tokens."""
  made = programs.Generated(np.asarray(ids, np.int32), None, np.int32(len(ids)))
  monkeypatch.setattr(programs, 'generate', lambda *_, **__: made)


def test_generation_ends_with_eos(live_model, monkeypatch):
  fake_generation(monkeypatch, [7, packing.EOS])
  result = live_model.generate(
      TEXT, tokens=5, temperature=0.0, seed=0, member=None
  )['tokens']
  assert [token['id'] for token in result] == [7, packing.EOS]


def test_a_wide_member_returns_few_latents_however_many_fire(
    live_model, saes, monkeypatch
):
  path = path_of(saes, 'resid_post')
  whole = live_model.activations(TEXT, member=path)
  most = np.diff(whole['start']).max()
  monkeypatch.setattr(live, '_NARROW', 0)
  monkeypatch.setattr(live, '_BOUND', 4)
  bounds = []
  active = passes.active

  def watched(*args, **kwargs):
    bounds.append(kwargs['bound'])
    return active(*args, **kwargs)

  monkeypatch.setattr(passes, 'active', watched)
  assert live_model.activations(TEXT, member=path) == whole
  assert bounds[0] == 4 and bounds[-2] < most <= bounds[-1] < 2 * most


def test_an_empty_text_is_bos_alone(live_model, saes):
  path = path_of(saes, 'resid_post')
  result = live_model.run('', members=None, k=2)
  assert [token['id'] for token in result['tokens']] == [packing.BOS]
  assert result['loss'] == [None] and len(result['next']) == passes.NEXT
  assert result['members'][0]['latents'] == [[]]
  assert live_model.activations('', member=path)['start'] == [0, 0]
  assert live_model.rank('', member=path, k=5, by='mean')['latents'] == []
  logits = live_model.logits('', member=path, keep_error=False)
  assert logits['loss'] == {'clean': None, 'spliced': None}
  attribution = live_model.attribution('', member=path, target=None)
  assert attribution['entries'] == [] and attribution['total'] == 0


def test_a_text_has_at_most_as_many_tokens_as_the_limit(live_model, saes):
  path = path_of(saes, 'resid_post')
  limit = live_model.max_tokens
  assert limit == conftest.LENGTHS[-1]
  text = '\x00' * (limit - 1)  # A token each.
  result = live_model.activations(text, member=path)
  assert len(result['tokens']) == limit
  assert {t['piece'] for t in result['tokens'][1:]} == {'<0x00>'}
  with pytest.raises(fields.Refused, match=f'{limit + 1} tokens with BOS'):
    live_model.activations(text + 'a', member=path)


def test_a_prompt_leaves_room_for_the_new_tokens(saes, model, monkeypatch):
  fake_generation(monkeypatch, [7] * 19)
  context = model.config.context
  longer = conftest.make_live(saes, model, lengths=(context,))
  text = 'a\n' * ((context - 20) // 2)
  assert len(model.tokenize(text)) == context - 19
  made = longer.generate(text, tokens=19, temperature=0.0, seed=0, member=None)
  assert len(made['tokens']) == 19
  with pytest.raises(fields.Refused, match='before 20 new ones') as raised:
    longer.generate(text, tokens=20, temperature=0.0, seed=0, member=None)
  assert raised.value.status == 413


def test_unknown_members_and_tokens_are_refused(live_model, saes):
  path = path_of(saes, 'resid_post')
  with pytest.raises(fields.Refused, match="'no' is not in this release"):
    live_model.activations(TEXT, member='no')
  with pytest.raises(fields.Refused, match="'no' is not in this release"):
    live_model.run(TEXT, members=[path, 'no'], k=1)
  with pytest.raises(errors.UserError, match='ids must be from 1 to 4095'):
    live_model.attribution(TEXT, member=path, target=10**30)


def test_rows_of_the_embedding_beyond_the_tokenizer_are_no_tokens(
    live_model, saes, monkeypatch
):
  monkeypatch.setattr(live_model, '_vocab', 300)
  path = path_of(saes, 'resid_post')
  ids = [t['id'] for t in live_model.run(TEXT, members=None, k=1)['next']]
  assert max(ids) < 300
  with pytest.raises(fields.Refused, match='token ids are below 300'):
    live_model.attribution(TEXT, member=path, target=300)


def test_members_of_another_model_are_refused(saes, model):
  path = path_of(saes, 'transcoder')
  sae = saes[path].released
  narrow = dataclasses.replace(sae, sae=dataclasses.replace(sae.sae, d_in=8))
  with pytest.raises(errors.UserError, match='has 8 dimensions'):
    live.Live({path: dictionary.Dictionary(narrow)}, model)


def make_variant(variant, *, width, seed=0):
  """Returns an SAE of the residual stream, and its parameters."""
  config = variants.VARIANTS[variant][1]()
  sae = variants.make_sae(variant, config, d_in=128, d_out=128, width=width)
  params = sae.init_params(
      jax.random.key(seed), initial_threshold=0.5, target_l0=5.0
  )
  return sae.fold(params, input_scale=2.0, target_scale=2.0)


@pytest.mark.parametrize('variant', variants.VARIANTS)
def test_every_variant_is_served(model, variant):
  sae, params = make_variant(variant, width=64)
  origin = record.Origin('gemma2_nano', api.LAYER, 'resid_post', None)
  member = dictionary.Dictionary(record.Released(sae, params, origin, {}, {}))
  made = conftest.make_live({variant: member}, model, lengths=(16,))
  acts = model.run(TEXT[:20], member)
  result = made.activations(TEXT[:20], member=variant)
  actual = dense(result, 64)
  np.testing.assert_allclose(actual, acts.latents, rtol=1e-5, atol=1e-5)
  assert actual.any()
  (summary,) = made.run(TEXT[:20], members=None, k=32)['members']
  assert summary['l0'] == acts.l0.tolist()


@pytest.mark.slow
def test_every_program_is_compiled_at_the_start(saes, model):
  made = conftest.make_live(saes, model, lengths=(16,))
  lines = []
  made.warm_up(lines.append)
  assert len(lines) == 5 and lines[-1] == 'compiling: steering'
  assert all(line.startswith('compiling: ') for line in lines)
  compiled, active = [], True

  def watch(event, seconds, **_):
    if active and event == '/jax/core/compile/backend_compile_duration':
      compiled.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(watch)
  for path in saes:
    made.run('a b', members=[path], k=5)
    made.activations('a b', member=path)
    made.rank('a b', member=path, k=5, by='mean')
    made.logits('a b', member=path, keep_error=False)
    made.attribution('a b', member=path, target='b')
    made.generate('a b', tokens=9, temperature=1.0, seed=1, member=path)
    changes = [fields.Edit(1, 'set', 2.0), fields.Edit(3, 'ablate', 0.0)]
    made.steer(
        'a b', member=path, edits=changes, tokens=9, temperature=1.0, seed=1
    )
  made.generate('a b', tokens=9, temperature=1.0, seed=1, member=None)
  assert not compiled
  jax.jit(lambda x: x + 1)(1)
  assert len(compiled) == 1
  active = False
