"""The table from logical to mesh axes, and the choice of layouts."""

from unittest import mock

import jax
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from jumprelu import errors, sharding
from tests import toy_suite

# Written out, so that a change of the table fails until it is confirmed here.
_GOLDEN = [
    (('sequences', 'positions'), P('data', None)),
    (('sequences', 'positions', 'model'), P('data', None, None)),
    (('shards', 'slots', 'model'), P('data', None, None)),
    (('batch', 'model'), P('data', None)),
    (('vocab', 'model'), P('tensor', None)),
    (('heads', 'model', None), P('tensor', None, None)),
    ((None, 'kv_heads', 'model', None), P(None, 'tensor', None, None)),
    ((None, 'model', 'ffw'), P(None, None, 'tensor')),
    (('ffw', 'model'), P('tensor', None)),
    (('members', 'latents'), P(None, None)),
]

_SAE = ('members', 'model', 'latents')
_GOLDEN_LAYOUTS = [
    ('single', P(None, None, None), P(None, None)),
    ('members', P(('data', 'tensor'), None, None), P(None, None)),
    ('members_latents', P('data', None, 'tensor'), P(None, None)),
    ('latents_all', P(None, None, ('data', 'tensor')), P(None, None)),
    ('latents', P(None, None, 'tensor'), P('data', None)),
]


@pytest.mark.parametrize('logical, expected', _GOLDEN)
def test_the_table_maps_logical_axes_to_mesh_axes(logical, expected):
  assert sharding.spec(*logical) == expected


@pytest.mark.parametrize('name, params, batch', _GOLDEN_LAYOUTS)
def test_a_layout_adds_its_rows_to_the_table(name, params, batch):
  rules = sharding.LAYOUTS[name].rules
  assert sharding.spec(*_SAE, rules=rules) == params
  assert sharding.spec('batch', 'model', rules=rules) == batch


def test_one_mesh_axis_is_not_used_twice():
  with pytest.raises(ValueError, match="'heads' and 'vocab'.*'tensor'"):
    sharding.spec('heads', 'vocab')


@pytest.mark.parametrize(
    'data, tensor, members, width, expected',
    [
        (1, 1, 6, 1024, 'single'),
        (8, 1, 5, 1024, 'members'),  # 5 of 8 slots
        (8, 1, 3, 1024, 'latents'),  # too few: the batch is sharded over data
        (4, 2, 5, 1024, 'members'),
        (4, 2, 3, 1024, 'members_latents'),  # 3 of 4 rows of devices
        (2, 4, 1, 1024, 'latents'),
        (4, 2, 16, 2**17, 'members_latents'),  # too wide for one device
        (8, 1, 16, 2**17, 'latents_all'),  # too wide, and no other axis
        (1, 8, 1, 2**20, 'latents_all'),
        (8, 1, 3, 2**14, 'latents_all'),  # too few, gradients too large
        (2, 4, 8, 2**19, 'latents_all'),  # even a quarter is too wide
    ],
)
def test_members_are_sharded_over_devices_if_they_fill_half_of_them(
    data, tensor, members, width, expected
):
  mesh = toy_suite.make_mesh(data, tensor)
  assert sharding.choose_layout(mesh, members, width).name == expected


def test_the_layout_without_a_mesh_is_single():
  assert sharding.choose_layout(None, 5, 1024).name == 'single'


@pytest.mark.parametrize(
    'data, tensor, layout, padded',
    [
        (8, 1, 'members', 8),
        (4, 2, 'members', 8),
        (4, 2, 'members_latents', 8),
        (2, 4, 'members_latents', 6),
        (4, 2, 'latents', 5),
    ],
)
def test_five_members_are_padded_to_a_multiple_of_their_mesh_axes(
    data, tensor, layout, padded
):
  mesh = toy_suite.make_mesh(data, tensor)
  assert sharding.pad_members(mesh, sharding.LAYOUTS[layout], 5) == padded


def test_a_width_that_tensor_does_not_divide_names_its_neighbours():
  with pytest.raises(errors.UserError, match='width 1022 .*1020 or 1024'):
    sharding.choose_layout(toy_suite.make_mesh(2, 4), 1, 1022)


def test_data_zero_takes_all_devices():
  assert dict(sharding.make_mesh(sharding.Config(tensor=2)).shape) == {
      'data': 4,
      'tensor': 2,
  }


@pytest.mark.parametrize(
    'config', [sharding.Config(tensor=3), sharding.Config(data=4, tensor=4)]
)
def test_a_mesh_that_does_not_use_all_devices_is_refused(config):
  with pytest.raises(errors.UserError, match=r'8 devices.*\[1, 2, 4, 8\]'):
    sharding.make_mesh(config)


@pytest.mark.parametrize('fields', [{'data': -1}, {'tensor': 0}])
def test_bad_sizes_are_refused_without_a_device(fields):
  with pytest.raises(errors.UserError, match=next(iter(fields))):
    sharding.Config(**fields)


def test_an_axis_that_does_not_divide_is_replicated():
  mesh = toy_suite.make_mesh(1, 8)
  axes = (None, 'kv_heads', 'model', None)
  few = sharding.named(mesh, *axes, shape=(2, 4, 16, 8))
  many = sharding.named(mesh, *axes, shape=(2, 16, 16, 8))
  assert few.spec == P(None, None, None, None)
  assert many.spec == P(None, 'tensor', None, None)


_GOLDEN_FSDP = [
    (('vocab', 'model'), P('tensor', 'data')),
    (('heads', 'model', None), P('tensor', 'data', None)),
    ((None, 'kv_heads', 'model', None), P(None, 'tensor', 'data', None)),
    (('heads', None, 'model'), P('tensor', None, 'data')),
    ((None, 'ffw', 'model'), P(None, 'tensor', 'data')),
    ((None, 'model', 'ffw'), P(None, 'data', 'tensor')),
    (('ffw', 'model'), P('tensor', 'data')),
    (('sequences', None, None), P('data', None, None)),
    (('shards', None, None), P('data', None, None)),
    ((None,), P(None)),
]


@pytest.mark.parametrize('logical, expected', _GOLDEN_FSDP)
def test_fsdp_shards_weights_over_data_too(logical, expected):
  assert sharding.spec(*logical, rules=sharding.FSDP_RULES) == expected


@pytest.mark.parametrize(
    'data, tensor, gib, fsdp',
    [
        (16, 1, 3.0, False),  # 2B to layer 12
        (16, 1, 9.4, True),  # 9B to layer 20
        (8, 2, 9.4, False),
        (16, 1, 26.4, True),  # 27B to layer 22
        (4, 4, 26.4, True),
        (1, 8, 26.4, False),
        (32, 8, 50.7, True),  # 27B whole, on 256 chips
    ],
)
def test_weights_that_do_not_fit_are_sharded_over_data(data, tensor, gib, fsdp):
  mesh = sharding.MeshShape(data, tensor)
  rules = sharding.lm_rules(mesh, int(gib * 2**30))
  assert rules is (sharding.FSDP_RULES if fsdp else sharding.RULES)


def test_without_a_mesh_weights_are_not_sharded():
  assert sharding.lm_rules(None, 2**60) is sharding.RULES


def test_the_platform_is_that_of_the_meshs_devices():
  tpu = mock.Mock(platform='tpu')
  remote = mock.Mock(spec=jax.sharding.Mesh, devices=np.asarray([tpu]))
  assert sharding.platform(remote) == 'tpu'
  assert sharding.platform(toy_suite.make_mesh(8)) == 'cpu'
  assert sharding.platform(None) == 'cpu'


def test_constrain_shards_an_array_inside_jit():
  mesh = toy_suite.make_mesh(8)
  x = np.arange(16.0).reshape(16, 1)
  constrained = jax.jit(lambda x: sharding.constrain(x, mesh, 'batch', None))(x)
  shapes = {shard.data.shape for shard in constrained.addressable_shards}
  assert shapes == {(2, 1)}
  np.testing.assert_array_equal(constrained, x)
