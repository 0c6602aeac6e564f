"""Tests of edits: x' = x + (f' - f) W_dec, in whole and in cached passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jumprelu
from jumprelu import errors, lm
from jumprelu.api import edits, programs, texts
from jumprelu.evals import edits as edits_lib

TEXT = 'with open(path) as f:\n    return f.read()\n'
LAST = lm.Tap(2, lm.Site.RESID_POST)
SITES = ['resid_post', 'mlp_out', 'attn_heads', 'transcoder']


def _latent(model, sae):
  """Returns the latent that is active on the most tokens of the text."""
  return int((model.run(TEXT, sae).latents > 0).sum(0).argmax())


def _edit(sae, latent, op, value=None, **options):
  return jumprelu.Edit(sae, latent, op=op, value=value, **options)


def _changes(model, edits_, x):
  """Returns the changes of rows of activations at a tap, BOS first."""
  made = edits.compiled(edits_, model.model, length=len(x))
  at = jnp.arange(len(x))[None]
  changes = edits_lib.changes(*made, keep=at > 0, positions=at)
  (change,) = changes.values()
  return np.asarray(change(jnp.asarray(x)[None])[0])


def test_no_edits_are_bit_identical(model, suite):
  sae = suite['resid_post', 5]
  plain, same = model.run(TEXT, sae), model.run(TEXT, sae, edits=[])
  np.testing.assert_array_equal(same.logits, plain.logits)
  np.testing.assert_array_equal(same.latents, plain.latents)
  made = model.generate('def ', tokens=6, edits=[])
  np.testing.assert_array_equal(
      made.logits, model.generate('def ', tokens=6).logits
  )


@pytest.mark.parametrize('site', SITES)
@pytest.mark.parametrize('op, value', [('scale', 1), ('add', 0), ('cap', 1e9)])
def test_edits_that_change_no_latent_add_exact_zeros(
    model, suite, site, op, value
):
  sae = suite[site, 5]
  x = model.activations(TEXT, sae.reads.input)[sae.reads.input]
  edit = _edit(sae, 3, op, value)
  if not sae.reads.is_transcoder:
    assert not _changes(model, [edit], x).any()
  # To rounding, because the two programs are fused differently.
  np.testing.assert_allclose(
      model.with_edits([edit]).logits(TEXT), model.logits(TEXT), atol=1e-4
  )


def test_a_latent_that_is_set_to_its_value_is_the_identity(model, suite):
  sae = suite['resid_post', 20]
  latent = _latent(model, sae)
  values = model.run(TEXT, sae).latents[:, latent]
  same = [
      _edit(sae, latent, 'set', float(value), positions=at)
      for at, value in enumerate(values)
  ]
  assert (values > 0).any()
  # To rounding, because the two programs may round latents differently.
  np.testing.assert_allclose(
      model.with_edits(same).logits(TEXT), model.logits(TEXT), atol=1e-4
  )
  other = model.with_edits([_edit(sae, latent, 'set', 9.0)]).logits(TEXT)
  assert np.abs(other - model.logits(TEXT)).max() > 0.1


@pytest.mark.parametrize('site', SITES[:3])
def test_an_ablation_moves_x_by_minus_f_times_the_row(model, suite, site):
  sae = suite[site, 5]
  acts, latent = model.run(TEXT, sae), _latent(model, sae)
  change = _changes(model, [_edit(sae, latent, 'ablate')], acts.inputs)
  f = np.asarray(sae.encode(acts.inputs))[:, latent] * (acts.keep > 0)
  assert np.count_nonzero(f) > 3
  expected = -f[:, None] * sae.W_dec[latent]
  np.testing.assert_allclose(change, expected, rtol=1e-5, atol=1e-6)


OPS = {
    'add': lambda f: f + 3,
    'set': lambda f: np.full_like(f, 3),
    'scale': lambda f: 3 * f,
    'ablate': np.zeros_like,
    'cap': lambda f: np.minimum(f, 3),
    'set_if_active': lambda f: np.where(f != 0, 3, f).astype(np.float32),
}


@pytest.mark.parametrize('op', OPS)
def test_an_op_moves_x_by_the_change_of_the_latent(model, suite, op):
  sae = suite['mlp_out', 7]
  acts, latent = model.run(TEXT, sae), _latent(model, sae)
  value = {'ablate': None, 'scale': 3.0}.get(op, 1.5)
  edit = _edit(sae, latent, op, value, unit=2.0)
  f = np.asarray(sae.encode(acts.inputs))[:, latent]
  expected = (OPS[op](f) - f)[:, None] * sae.W_dec[latent] * acts.keep[:, None]
  change = _changes(model, [edit], acts.inputs)
  np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-4)


@functools.partial(jax.jit, static_argnums=0, static_argnames='target')
def _spliced_logits(model, params, tokens, change, keep, *, target):
  """Returns logits with x + change, or the change alone, at a tap."""
  splice = {target: lambda x: jnp.where(keep, x, 0) + change}
  hidden = lm.hidden(
      model,
      params,
      tokens,
      positions=jnp.arange(tokens.shape[1])[None],
      segments=(tokens > 0).astype(jnp.int32),
      splice=splice,
  )
  return lm.unembed(model, params, hidden)[0]


def _by_hand(model, acts, change, *, keep):
  tokens = jnp.asarray(texts.padded(acts.tokens))
  room = tokens.shape[1] - len(change)
  change = jnp.asarray(np.pad(change, ((0, room), (0, 0))))[None]
  logits = _spliced_logits(
      model.model,
      model.params,
      tokens,
      change,
      keep,
      target=acts.sae.reads.target,
  )
  return np.asarray(logits[: len(acts.tokens)])


@pytest.mark.parametrize('site', SITES)
def test_the_logits_are_those_of_x_plus_the_change(model, suite, site):
  sae = suite[site, 5]
  acts, latent = model.run(TEXT, sae), _latent(model, sae)
  f = acts.latents[:, latent]
  change = (6 - f)[:, None] * sae.W_dec[latent] * acts.keep[:, None]
  edited = model.with_edits([_edit(sae, latent, 'set', 3.0, unit=2.0)])
  logits = edited.logits(TEXT)
  expected = _by_hand(model, acts, change, keep=True)
  np.testing.assert_allclose(logits, expected, atol=2e-3)
  assert np.abs(logits - model.logits(TEXT)).max() > 1e-2


def test_directions_are_latents_without_an_encoder(model):
  x = model.activations(TEXT, LAST)[LAST]
  direction = np.random.default_rng(0).normal(size=128).astype(np.float32)
  unit = direction / np.linalg.norm(direction)
  for op, value, expected in (
      ('add', 2.0, 2 * direction),
      ('ablate', None, -(x @ unit)[:, None] * unit),
      ('set', 0.5, 0.5 * direction - (x @ unit)[:, None] * unit),
      ('scale', 3.0, 2 * (x @ unit)[:, None] * unit),
  ):
    edit = jumprelu.Edit(tap=LAST, direction=direction, op=op, value=value)
    change = _changes(model, [edit], x)
    expected = (
        np.broadcast_to(expected, x.shape) * (np.arange(len(x)) > 0)[:, None]
    )
    np.testing.assert_allclose(change, expected, rtol=1e-3, atol=1e-3)


def test_several_sites_layers_and_latents_at_once(model, suite):
  resid, mlp, heads = (suite[site, 5] for site in SITES[:3])
  several = [
      _edit(heads, 1, 'add', 4.0),
      _edit(mlp, 2, 'add', 5.0),
      _edit(mlp, 3, 'ablate'),
      _edit(resid, 4, 'add', 6.0),
      jumprelu.Edit(tap=(0, 'resid_post'), direction=np.ones(128), value=0.2),
  ]
  joint = model.with_edits(several).logits(TEXT)
  # In any order, because their taps differ.
  reverse = model.with_edits(several[3:]).with_edits(several[:3])
  np.testing.assert_allclose(reverse.logits(TEXT), joint, atol=1e-4)
  for count in (0, 4):
    fewer = model.with_edits(several[:count]).logits(TEXT)
    assert np.abs(fewer - joint).max() > 1e-3


def test_edits_of_one_latent_apply_in_order(model, suite):
  sae = suite['resid_post', 5]
  steps = [_edit(sae, 7, 'set', 2.0), _edit(sae, 7, 'scale', 3.0)]
  for order, value in ((steps, 6.0), (steps[::-1], 2.0)):
    np.testing.assert_allclose(
        model.with_edits(order).logits(TEXT),
        model.with_edits([_edit(sae, 7, 'set', value)]).logits(TEXT),
        atol=1e-4,
    )


def test_several_saes_at_one_tap_read_the_same_activations(model, suite):
  first, second = suite['resid_post', 5], suite['resid_post', 20]
  acts = model.run(TEXT, first)
  both = [_edit(first, 7, 'set', 3.0), _edit(second, 8, 'ablate')]
  total = _changes(model, both, acts.inputs)
  parts = [_changes(model, [e], acts.inputs) for e in both]
  np.testing.assert_allclose(total, sum(parts), atol=1e-5)
  assert all(np.abs(change).max() > 0.1 for change in parts)


@pytest.mark.parametrize(
    'positions, edited',
    [
        (2, {2}),
        (-1, {12}),
        ([1, 3], {1, 3}),
        (slice(3, 5), {3, 4}),
        (slice(-2, None), {11, 12}),
        (None, set(range(1, 13))),
    ],
)
def test_only_the_positions_are_edited(model, suite, positions, edited):
  sae = suite['mlp_out', 7]
  x = model.run(model.tokenize(TEXT)[:13], sae).inputs
  edit = _edit(sae, 4, 'add', 9.0, positions=positions)
  change = _changes(model, [edit], x)
  assert set(np.flatnonzero(np.abs(change).sum(-1)).tolist()) == edited


@pytest.mark.parametrize(
    'site, positions',
    [
        *((site, None) for site in SITES),
        *(('resid_post', p) for p in (slice(-1, None), slice(0, 3), [5])),
    ],
)
def test_cached_generation_equals_the_full_pass(model, suite, site, positions):
  sae = suite[site, 5]
  start = 3 if isinstance(positions, slice) and positions.start else positions
  if isinstance(start, int):  # Of the whole text.
    start = slice(2, None)
  ids = model.tokenize('def ')
  assert len(ids) == 3
  options = [
      [_edit(sae, 4, 'add', 6.0, positions=p), _edit(sae, 9, 'ablate')]
      for p in (positions, start)
  ]
  made = model.generate(ids, tokens=9, edits=options[0])
  full = model.with_edits(options[1]).logits([*ids, *made.tokens])
  np.testing.assert_allclose(made.logits, full[2:-1], atol=1e-3)
  plain = model.logits([*ids, *made.tokens])[2:-1]
  assert np.abs(made.logits - plain).max() > 1e-2


def test_vmap_over_strengths_equals_a_loop(model, suite):
  sae, tokens = suite['resid_post', 20], model.tokenize(TEXT)
  rows = jnp.asarray(texts.padded(tokens))
  strengths = [0.0, 2.0, 9.0]

  def logits(value):
    made = edits.compiled(
        [_edit(sae, 5, 'add', 1.0)], model.model, length=len(tokens)
    )
    (arrays,) = made.edit_arrays
    passed = programs.forward(
        model.config,
        model.params,
        rows,
        None,
        taps=(),
        spliced=None,
        edited=made.edited,
        edit_arrays=(arrays._replace(values=value[None]),),
    )
    return passed.logits[0]

  together = jax.jit(jax.vmap(logits))(jnp.array(strengths))
  for strength, batched in zip(strengths, together, strict=True):
    edited = model.with_edits([_edit(sae, 5, 'add', strength)])
    np.testing.assert_allclose(
        batched[: len(tokens)], edited.logits(TEXT), atol=1e-4
    )


def test_other_edits_need_no_other_program(model, suite):
  sae = suite['resid_post', 5]
  model.generate('def ', tokens=4, edits=[_edit(sae, 1, 'add', 1.0)])
  compiled = programs.generate._cache_size()
  for edit in (_edit(sae, 2, 'ablate'), _edit(sae, 3, 'cap', 0.5, positions=1)):
    model.generate('def ', tokens=4, edits=[edit])
  assert programs.generate._cache_size() == compiled


def test_edits_are_added_to_a_spliced_reconstruction(model, suite):
  """The reconstruction of changed latents is x-hat plus the change."""
  sae = suite['resid_post', 20]
  latent = _latent(model, sae)
  acts = model.run(TEXT, sae)
  f = acts.latents.copy()
  f[:, latent] = 0
  spliced = model.with_sae(sae).with_edits([_edit(sae, latent, 'ablate')])
  direct = np.where(acts.keep[:, None], sae.decode(f), acts.targets)
  expected = _by_hand(model, acts, direct, keep=False)
  np.testing.assert_allclose(spliced.logits(TEXT), expected, atol=2e-3)


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'op': 'double', 'value': 1.0},
            'Edit: op=double: use one of add, set',
        ),
        ({'op': 'add'}, 'value=None: add needs a finite number'),
        ({'op': 'set', 'value': float('nan')}, 'value=nan: set needs'),
        ({'op': 'ablate', 'value': 1.0}, 'ablate has none'),
        ({'value': 1.0, 'unit': 0}, 'unit=0: pass a number above 0'),
        ({'latent': 64, 'value': 1.0}, 'latent=64: .* has 0 to 63'),
        ({'latent': None, 'value': 1.0}, 'latent=None: .* has 0 to 63'),
        ({'value': 1.0, 'tap': (2, 'mlp_out')}, 'tap= is for directions'),
        ({'sae': 'a', 'value': 1.0}, 'sae=str: pass one SAE'),
        ({'sae': None, 'value': 1.0}, 'or tap= and direction='),
    ],
)
def test_edits_without_meaning_are_refused(suite, options, message):
  arguments = {'sae': suite['resid_post', 5], 'latent': 1} | options
  with pytest.raises(errors.UserError, match=message) as error:
    jumprelu.Edit(**arguments)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'op': 'set_if_active'}, 'no direction is inactive; use set'),
        ({'direction': np.ones(9)}, '9 entries: layer_2.resid_post has 128'),
        ({'direction': np.zeros(128)}, 'pass one that is not zero'),
        ({'tap': (9, 'resid_post')}, 'has layers 0 to 3'),
        ({'positions': 99}, 'positions=99: the text has tokens 0 to 2'),
        ({'positions': 'last'}, 'pass integers, a slice, or None'),
        ({'positions': slice(0, 9, 2)}, 'must have step 1'),
    ],
)
def test_directions_that_do_not_fit_are_refused(model, options, message):
  arguments = {'tap': LAST, 'direction': np.ones(128), 'value': 1.0} | options
  with pytest.raises(errors.UserError, match=message) as error:
    model.with_edits([jumprelu.Edit(**arguments)]).logits('import os')
  assert '\n' not in str(error.value)


def test_attributions_under_edits_are_refused(model, suite):
  edited = model.with_edits([_edit(suite['mlp_out', 7], 1, 'ablate')])
  with pytest.raises(errors.UserError, match='without SAEs and edits'):
    edited.attribute(TEXT, target='f', sae=suite['mlp_out', 7])
  assert 'latent 1 at layer_2.mlp_out, ablate' in repr(edited)
  assert 'latent 1 at layer_2.mlp_out, ablate' in edited._repr_html_()
