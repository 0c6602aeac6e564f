"""Folder names are those of Gemma Scope."""

import pytest

from jumprelu.release import layout


@pytest.mark.parametrize(
    'width, name',
    [
        (1024, '1k'), (2048, '2k'), (4096, '4k'), (16384, '16k'),
        (32768, '32k'), (65536, '65k'), (131072, '131k'), (262144, '262k'),
        (524288, '524k'), (1048576, '1m'), (512, '512'), (1000, '1000'),
        (3072, '3072'), (1, '1'),
    ],
)  # fmt: skip
def test_widths_have_gemma_scopes_names(width, name):
  assert layout.width_name(width) == name


@pytest.mark.parametrize(
    'l0, name',
    [
        (0.0, 1), (0.2, 1), (0.5, 1), (1.49, 1), (1.5, 2), (2.5, 3),
        (22.4, 22), (81.5, 82), (444.999, 445), (2.4999999999999996, 2),
    ],
)  # fmt: skip
def test_l0_is_rounded_half_up_to_at_least_one(l0, name):
  assert layout.l0_name(l0) == name


@pytest.mark.parametrize('l0', [float('nan'), float('inf'), -1.0])
def test_a_negative_or_non_finite_l0_has_no_name(l0):
  with pytest.raises(ValueError, match='L0'):
    layout.l0_name(l0)


def test_colliding_members_are_numbered_by_coefficient_then_seed():
  folders = ['a', 'b', 'a', 'a', 'b']
  order = [(3e-3, 0), (1e-3, 0), (1e-3, 1), (1e-3, 0), (1e-3, 1)]
  assert layout.resolve_collisions(folders, order) == [
      'a_3', 'b', 'a_2', 'a', 'b_2',
  ]  # fmt: skip


def test_colliding_members_with_targets_have_them_in_their_names():
  folders, targets = ['a', 'a', 'b', 'a', 'c', 'c'], [
      50.0,
      12.5,
      50.0,
      50.0,
      0.0,
      0.0,
  ]
  named = layout.with_targets(folders, targets)
  assert named == [
      'a_target_50', 'a_target_12.5', 'b', 'a_target_50', 'c', 'c',
  ]  # fmt: skip
  order = [(i,) for i in range(6)]
  resolved = layout.resolve_collisions(named, order)
  assert resolved[3] == 'a_target_50_2' and len(set(resolved)) == 6
  for path, folder in zip(resolved, folders, strict=True):
    assert layout.is_folder_of(path, folder)
  for path in ('a_target_', 'a_target_x', 'a_1', 'a_target_5_1', 'ab'):
    assert not layout.is_folder_of(path, 'a')


def test_other_variants_have_their_own_folder():
  names = dict(site='mlp_out', layer=12, width=16384, l0=43.6)
  assert (
      layout.member_folder(variant='jumprelu', **names)
      == 'mlp_out/layer_12/width_16k/average_l0_44'
  )
  assert (
      layout.member_folder(variant='gated', **names)
      == 'variants/gated/mlp_out/layer_12/width_16k/average_l0_44'
  )
