"""A latent's explanations are on its page, and its score in the table."""

import shutil

import pytest

from jumprelu.explain import scoring, storage
from jumprelu.explore import page_data, write
from jumprelu.features import reading
from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

_TEXT = '<img src=x onerror=alert(1)> fires on \u202e"if"'
_SCORES = {
    'detection': scoring.Score(0.875, 0.71, 0.95, 40, 0),
    'fuzzing': scoring.Score(0.625, 0.4, 0.8, 18, 2),
    'intruder': scoring.Score(None, None, None, 0, 0),
    'simulation': scoring.Score(None, None, None, 0, 10),
}


@pytest.fixture(scope='module')
def explained(demo, tmp_path_factory):
  """Returns the page of a member; only its latent 1 has an explanation."""
  features = tmp_path_factory.mktemp('explained') / 'features'
  shutil.copytree(
      demo.features, features, ignore=shutil.ignore_patterns('explanations')
  )
  member = demo.member()['id']
  identity = {
      'explainer': 'llm',
      'judge': 'llm',
      'model': 'a-model',
      'members': [{'path': member, 'sha256': ''}],
  }
  folder = storage.open_set(features, 'by_hand', identity)
  token = {'token': None, 'detection': None, 'fuzzing': None}
  row = storage.row(
      member, 1, explanation=_TEXT, rule='', scores=_SCORES, single_token=token
  )
  file = reading.member_files(member)['file']
  storage.write_member(folder, file, [row])
  storage.write_manifest(folder, identity, {})
  page = features.parent / 'page.html'
  write.write_file(
      page_data.collect(features, title='', members=[member]), page
  )
  return page, pages.read_index(page)['members'][0]['link']


def _card(page):
  heading = page.get_by_role('heading', name='Explanations', exact=True)
  return heading.locator('xpath=ancestor::section')


def test_an_explanation_has_its_scores_and_stays_text(visit, explained):
  path, link = explained
  page = visit(path, fragment=f'{link}/1')
  card = _card(page)
  expect(card).to_contain_text('<img src=x onerror=alert(1)> fires on')
  expect(card).to_contain_text('[RLO]"if"')
  expect(card).to_contain_text('by_hand, judged by a-model')
  rows = card.locator('tbody').get_by_role('row').all()
  cells = [row.locator('td').all_text_contents() for row in rows]
  assert cells == [
      ['Detection', '0.875', '0.710 to 0.950', '40 answers'],
      ['Fuzzing', '0.625', '0.400 to 0.800', '18 answers, 2 unparsable'],
      ['Simulation', '\u2013', '', '0 answers, 10 unparsable'],
  ]


def test_a_latent_that_was_not_explained_is_named(visit, explained):
  path, link = explained
  page = visit(path, fragment=f'{link}/2')
  expect(_card(page)).to_contain_text('This latent was not explained.')


def test_the_table_is_sorted_by_detection(visit, explained):
  path, link = explained
  page = visit(path, fragment=link)
  heading = page.get_by_role('columnheader', name='Detection')
  heading.get_by_role('button').first.click()
  # The first rows are the headings and the ranges.
  expect(page.get_by_role('row').nth(2)).to_contain_text('0.875')


def test_a_page_without_explanations_has_no_card(
    demo, explained, visit, tmp_path
):
  features = explained[0].parent / 'features'
  plain = tmp_path / 'features'
  shutil.copytree(
      features, plain, ignore=shutil.ignore_patterns('explanations')
  )
  data = page_data.collect(plain, title='', members=[demo.member()['id']])
  write.write_file(data, tmp_path / 'page.html')
  page = visit(tmp_path / 'page.html', fragment=f'{explained[1]}/1')
  expect(page.get_by_role('heading', name='Examples')).to_be_visible()
  expect(_card(page)).to_have_count(0)
