"""The page has the explanations of all sets, and pages without any work."""

import math
import shutil

import numpy as np
import pytest

from jumprelu import explain
from jumprelu.explain import make
from jumprelu.explore import page_data
from jumprelu.features import reading
from tests.explore.conftest import read_page_data

_MEMBER = 'resid_post/layer_2/width_64/average_l0_20'


@pytest.fixture(scope='module')
def explained(folder, tmp_path_factory):
  """Returns features with rules of one member, and of some of its latents."""
  copy = tmp_path_factory.mktemp('explained') / 'features'
  shutil.copytree(folder, copy)
  for name, latents in (('few', 5), ('rules', 0)):
    config = explain.Config(latents=latents, trials=2, simulated=2)
    make.make(make.Plan(copy, name, (_MEMBER,), 'rules', 'rules', config))
  return copy


def test_the_page_has_the_scores_of_the_tables(explained):
  index, arrays = read_page_data(page_data.collect(explained, title=''))
  names = [part['name'] for part in index['explanations']]
  assert sorted(names) == ['few', 'rules']
  (member,) = [m for m in index['members'] if m['id'] == _MEMBER]
  tables = [
      {r['latent']: r for r in reading.read_explanations(explained, name, _MEMBER).to_pylist()}
      for name in names
  ]  # fmt: skip
  latents = arrays[member['shards'][0]]['explanations']
  assert len(latents) == member['width'] == 64
  first = arrays[member['table']]['detection']
  count = 0
  for latent, entries in enumerate(latents):
    assert [e[0] for e in entries] == [
        i for i, table in enumerate(tables) if latent in table
    ]
    for number, text, scores in entries:
      row = tables[number][latent]
      assert text == row['explanation']
      for kind, score in zip(explain.KINDS, scores, strict=True):
        for value, stored in zip(score, row[kind].values(), strict=True):
          assert value == (
              stored if stored is None else pytest.approx(stored, abs=6e-4)
          )
      count += 1
    score = tables[entries[0][0]][latent]['detection']['score']
    shown = first[latent]
    assert math.isnan(shown) if score is None else abs(shown - score) < 1e-3
  assert count == 64 + 5


def test_members_without_explanations_have_none(explained):
  index, arrays = read_page_data(page_data.collect(explained, title=''))
  for member in index['members']:
    if member['id'] != _MEMBER:
      assert np.isnan(arrays[member['table']]['detection']).all()
      for name in member['shards']:
        assert not any(arrays[name]['explanations'])


def test_pages_of_features_without_explanations_name_none(page):
  index, arrays = page
  assert index['explanations'] == []
  for member in index['members']:
    assert 'detection' not in arrays[member['table']]
    assert 'explanations' not in arrays[member['shards'][0]]
