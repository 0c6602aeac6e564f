"""Tests of suites: loading, keys, selections and tables."""

import json
import shutil

import numpy as np
import pytest

import jumprelu
from jumprelu import errors
from jumprelu.api import suite as suite_lib
from tests.release.formats import folders


def test_a_site_and_an_l0_name_the_nearest_sae(suite):
  assert suite['resid_post', 6].l0 == 5.0
  assert suite['resid_post', 100].l0 == 20.0
  assert suite['mlp_out'].site == 'mlp_out'


def test_a_path_names_its_sae(suite):
  for path, sae in suite.items():
    assert suite[path] is sae and sae.path == path


def test_an_ambiguous_key_lists_the_members_that_fit(suite):
  with pytest.raises(suite_lib.UnknownMember) as error:
    suite['resid_post']
  paths = [path for path in suite if path.startswith('resid_post')]
  assert len(paths) == 2 and all(path in str(error.value) for path in paths)


def test_an_unknown_key_lists_sites_and_paths(suite):
  with pytest.raises(KeyError, match='sites: attn_heads, mlp_out'):
    suite['residual', 5]
  assert 'residual' not in suite
  for key in (('resid_post', 'big'), ('resid_post', 2, 5)):
    with pytest.raises(KeyError, match='a key is PATH, SITE, or SITE, L0'):
      suite[key]


def test_a_selection_is_exact(suite):
  assert len(suite.select(site='resid_post')) == 2
  assert len(suite.select(width=48)) == 2
  assert len(suite.select(variant='jumprelu', layer=2)) == 5
  assert list(suite.select(seed=2).values())[0].site == 'mlp_out'
  for wanted in (
      {'width': 47},
      {'site': 'residual'},
      {'layer': 3},
      {'variant': 'topk'},
      {'seed': 9},
      {'site': 'resid_post', 'width': 48},
  ):
    (name, value), *_ = reversed(wanted.items())
    with pytest.raises(suite_lib.UnknownMember, match=f'{name}={value!r}: no'):
      suite.select(**wanted)


def test_a_selected_l0_agrees_to_the_digits_of_the_argument(suite):
  values = [2.0, 27.51, 27.49, 5.04, 5.5]
  saes = {}
  for l0, (path, sae) in zip(values, suite.items(), strict=True):
    saes[path] = jumprelu.SAE(sae.released, path=path, results={'l0': l0})
  suite = jumprelu.Suite(saes)
  for wanted, selected in (
      (28, [27.51]),
      (28.0, [27.51]),
      (27.5, [27.51, 27.49]),
      (27.49, [27.49]),
      (5, [5.04, 5.5]),
  ):
    assert [s.l0 for s in suite.select(l0=wanted).values()] == selected
  with pytest.raises(suite_lib.UnknownMember, match='l0=26: .* l0 is 2, 5.04'):
    suite.select(l0=26)


def test_a_key_does_not_choose_between_widths_or_layers(tmp_path):
  root = tmp_path / 'gemma-scope-2b-pt-res'
  for layer, width, l0 in ((3, 16, 7), (3, 16, 20), (3, 32, 8), (4, 16, 7)):
    name = f'layer_{layer}/width_{width}/average_l0_{l0}'
    folders.gemma_scope(root / name, folders.arrays(width=width))
  suite = jumprelu.load(root)
  with pytest.raises(suite_lib.UnknownMember) as error:
    suite['resid_post', 8]
  message = str(error.value)
  assert 'fits 3 SAEs that differ in layer, width' in message
  assert message.count('layer_3/width_16') == 1 and 'l0_20' not in message
  one_width = suite.select(layer=3, width=16)
  assert one_width['resid_post', 15].path.endswith('average_l0_20')
  assert list(suite.select(l0=20)) == ['layer_3/width_16/average_l0_20']
  assert 'l0: the number in the folder' in repr(suite)


def test_saes_without_an_l0_are_selected_by_the_rest(tmp_path):
  for layer in (1, 2):
    folders.saelens(
        tmp_path / f'{layer}',
        folders.arrays(),
        {'architecture': 'jumprelu'},
        hook_name=f'blocks.{layer}.hook_resid_post',
    )
  suite = jumprelu.load(tmp_path)
  assert suite.select(layer=2)['resid_post'].path == '2'
  for select in (lambda: suite.select(l0=8), lambda: suite['resid_post', 8]):
    with pytest.raises(suite_lib.UnknownMember) as error:
      select()
    assert 'the L0 of these SAEs is unknown; select by' in str(error.value)
    assert '\n' not in str(error.value)


def test_a_table_has_a_row_and_its_results_for_each_sae(suite):
  rows = suite.table()
  assert [row['path'] for row in rows] == list(suite)
  assert [row['l0'] for row in rows] == [20.0, 5.0, 7.0, 9.0, 4.0]
  assert all(np.isscalar(v) or v is None for row in rows for v in row.values())


def test_the_html_escapes_what_files_say(suite):
  evil = jumprelu.Suite(dict(suite), name='<script>')
  assert '<script>' not in evil._repr_html_()
  assert '<table>' in evil._repr_html_()


def test_a_member_and_its_file_load_alone(release, suite):
  path = next(iter(suite))
  for where in (release / path, release / path / 'params.npz'):
    (sae,) = jumprelu.load(where).values()
    np.testing.assert_array_equal(sae.W_dec, suite[path].W_dec)


def test_a_file_without_an_sae_is_refused(release):
  with pytest.raises(errors.UserError, match='suite.json: holds no SAE; pass'):
    jumprelu.load(release / 'suite.json')


def test_an_argument_that_contradicts_the_files_is_refused(release):
  with pytest.raises(errors.UserError, match='layer=7: .* is of 2'):
    jumprelu.load(release, layer=7)


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(errors.MissingInputError, match='nowhere'):
    jumprelu.load(tmp_path / 'nowhere')


@pytest.mark.parametrize('value', ['many', [3], 10**400])
def test_an_l0_that_is_no_number_is_named(release, tmp_path, value):
  copy = shutil.copytree(release, tmp_path / 'copy')
  path = next(copy.rglob('results.json'))
  path.write_text(json.dumps(json.loads(path.read_text()) | {'l0': value}))
  with pytest.raises(errors.DataError, match=r'results\.json: l0 is .*number'):
    jumprelu.load(copy)
