"""Features of other SAEs are refused."""

import dataclasses

import pytest

from jumprelu import errors
from jumprelu.explore import release_page
from jumprelu.release import formats


def test_features_of_the_release_are_accepted(release, folder):
  release_page.check_features(folder, formats.find(release))


def test_an_sae_that_has_changed_is_named(release, folder):
  released = dict(formats.find(release))
  path, sae = next(iter(released.items()))
  params = dict(sae.params)
  params['b_dec'] = params['b_dec'] + 1
  changed = dataclasses.replace(sae, params=params)
  with pytest.raises(errors.UserError, match=f'{path} has changed'):
    release_page.check_features(folder, {path: changed})
  with pytest.raises(errors.UserError, match='no features of other'):
    release_page.check_features(folder, {'other': sae})


def test_the_title_does_not_show_the_folders_of_the_machine(page_data, release):
  title = page_data.index['title']
  assert title == '/'.join(release.parts[-2:])
