"""Tests of suites: loading, keys, selections and tables."""

import numpy as np
import pytest

import jumprelu
from jumprelu import errors
from jumprelu.api import suite as suite_lib


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


def test_a_selection_is_exact_in_all_but_l0(suite):
  assert len(suite.select(site='resid_post')) == 2
  assert len(suite.select(width=48)) == 2
  assert [s.l0 for s in suite.select(site='resid_post', l0=6).values()] == [5.0]
  assert list(suite.select(seed=2).values())[0].site == 'mlp_out'
  with pytest.raises(errors.UserError, match='no SAE'):
    suite.select(width=47)


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


def test_an_argument_that_contradicts_the_files_is_refused(release):
  with pytest.raises(errors.UserError, match='layer=7: .* is of 2'):
    jumprelu.load(release, layer=7)


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(errors.MissingInputError, match='nowhere'):
    jumprelu.load(tmp_path / 'nowhere')
