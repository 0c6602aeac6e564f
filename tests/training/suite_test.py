"""Members, groups, and states, which do not depend on the layout."""

import dataclasses

import jax
import numpy as np
import pytest

from jumprelu import errors, lm, saes
from jumprelu.training import padding, suite
from tests import toy_suite

_MEMBER = suite.Member(
    site='resid_post',
    layer=1,
    width=48,
    variant='jumprelu',
    sparsity_coefficient=1e-3,
    target_l0=0.0,
    seed=0,
    learning_rate=1e-3,
    initial_threshold=0.01,
)


def _groups(*members):
  return suite.make_groups(
      members,
      configs={'jumprelu': saes.VARIANTS['jumprelu'][1]()},
      d_site=toy_suite.WIDTHS.__getitem__,
  )


def _with(**changes):
  return dataclasses.replace(_MEMBER, **changes)


def test_members_of_one_shape_are_stacked():
  a, b = _with(seed=1), _with(seed=2)
  wide, other = _with(width=96), _with(site='transcoder')
  groups = _groups(a, wide, b, other)
  assert [g.name for g in groups] == [
      'resid_post-48-jumprelu',
      'resid_post-96-jumprelu',
      'transcoder-48-jumprelu',
  ]
  assert groups[0].members == (a, b)
  shapes = [(g.sae.d_in, g.sae.d_out, g.sae.transcoder) for g in groups]
  assert shapes == [(16, 16, False), (16, 16, False), (20, 24, True)]


def test_taps_are_those_that_groups_read_or_reconstruct():
  groups = _groups(_with(site='transcoder'), _with(site='mlp_out'))
  assert suite.taps(groups) == (
      lm.Tap(1, lm.Site.MLP_IN),
      lm.Tap(1, lm.Site.MLP_OUT),
  )


def test_members_of_several_layers_are_groups_named_by_layer():
  low, high = _with(layer=1), _with(layer=3)
  groups = _groups(low, high)
  assert [g.name for g in groups] == [
      'layer_1-resid_post-48-jumprelu',
      'layer_3-resid_post-48-jumprelu',
  ]
  assert [g.reads.layer for g in groups] == [1, 3]
  # The initialisation of a group does not depend on the other groups.
  alone = _params(_groups(high))
  beside = _params(groups, groups[1].name)
  for name, values in alone.items():
    np.testing.assert_array_equal(beside[name], values)


def test_a_repeated_member_is_an_error():
  with pytest.raises(errors.UserError, match='twice.*seed=0'):
    _groups(_MEMBER, _MEMBER)


def test_every_parameter_is_sharded_over_latents_two_encoders_alike():
  groups = suite.make_groups(
      [_with(variant='gated')],
      configs={'gated': saes.gated.Config(tied=False)},
      d_site=toy_suite.WIDTHS.__getitem__,
  )
  places = suite.state_shardings(groups, mesh=toy_suite.make_mesh(2, 4))
  group = places.groups[groups[0].name]
  sharded = {'W_enc': [2], 'W_mag': [2], 'W_dec': [1], 'b_enc': [1]}
  sharded |= {'b_mag': [1], 'b_dec': []}
  for tree in (group.params, group.nu):
    axes = {
        name: [i for i, part in enumerate(place.spec) if part]
        for name, place in tree.items()
    }
    assert axes == sharded


def _params(groups, name='resid_post-48-jumprelu', mesh=None):
  return jax.device_get(suite.init_state(groups, mesh=mesh)).groups[name].params


def test_initialisation_depends_on_seed_and_shape_but_not_on_position():
  alone = _params(_groups(_with(seed=7)))
  third = _params(_groups(_MEMBER, _with(seed=1), _with(seed=7)))
  for name, values in alone.items():
    np.testing.assert_allclose(third[name][2], values[0], atol=1e-7)
  assert np.abs(third['W_dec'][0] - third['W_dec'][2]).max() > 0.1
  # The same seed at another width has another initialisation.
  wide = _params(_groups(_with(seed=7, width=96)), 'resid_post-96-jumprelu')
  assert np.abs(wide['W_dec'][0, :48] - alone['W_dec'][0]).max() > 0.1


def test_initial_thresholds_belong_to_members():
  groups = _groups(_MEMBER, _with(initial_threshold=0.5, seed=2**32 - 1))
  params = _params(groups)
  np.testing.assert_allclose(
      np.exp(params['log_threshold']), [[0.01] * 48, [0.5] * 48], rtol=1e-6
  )


def test_five_members_on_eight_devices_are_stored_as_five():
  groups = _groups(*(_with(seed=n) for n in range(5)))
  mesh = toy_suite.make_mesh(8)
  state = suite.init_state(groups, mesh=mesh)
  (trained,) = state.groups.values()
  assert trained.params['W_enc'].shape == (8, 16, 48)
  assert trained.params['W_enc'].addressable_shards[0].data.shape == (1, 16, 48)
  # Padding is a copy of the last member.
  np.testing.assert_array_equal(
      trained.params['W_enc'][7], trained.params['W_enc'][4]
  )

  stored = padding.strip(state, groups, mesh=mesh)

  def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

  assert shapes(stored) == shapes(suite.stored_state(groups))
  assert shapes(stored) == shapes(suite.stored_state(groups, mesh=mesh))
  # The stored state is sharded over all devices, not gathered on a single one.
  part = stored.groups[groups[0].name].params['W_enc'].addressable_shards[0]
  assert part.data.shape == (5, 16, 6)

  again = padding.add(stored, groups, mesh=mesh)
  jax.tree.map(np.testing.assert_array_equal, again, state)


def test_initialisation_does_not_depend_on_the_devices():
  groups = _groups(*(_with(seed=n) for n in range(5)))
  alone = _params(groups)
  spread = _params(groups, mesh=toy_suite.make_mesh(2, 4))
  for name, values in alone.items():
    np.testing.assert_allclose(spread[name][:5], values, atol=1e-7)


def test_every_site_of_the_command_line_has_inputs_and_targets():
  assert lm.SITES == {
      'resid_post': ('resid_post', 'resid_post'),
      'mlp_out': ('mlp_out', 'mlp_out'),
      'attn_heads': ('attn_heads', 'attn_heads'),
      'transcoder': ('mlp_in', 'mlp_out'),
  }


def test_members_of_a_layer_have_different_names():
  members = [
      _MEMBER,
      _with(site='mlp_out'),
      _with(width=96),
      _with(variant='topk'),
      _with(sparsity_coefficient=1.0),
      _with(sparsity_coefficient=1.0, target_l0=20.0),
      _with(sparsity_coefficient=0.0, target_l0=20.0),
      _with(sparsity_coefficient=1.0, target_l0=20.5),
      _with(sparsity_coefficient=1.00000001),
      _with(seed=1),
  ]
  names = [suite.member_name(member) for member in members]
  assert names[0] == 'resid_post-48-jumprelu-lambda_0.001-seed_0'
  assert names[5] == 'resid_post-48-jumprelu-l0_20-seed_0'
  assert len(set(names)) == len(members)
