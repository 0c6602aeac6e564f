"""Texts: the passages of the files, as one member or two see them."""

import re

import numpy as np
import pytest

from jumprelu.features import reading
from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser


def _passage(demo, member, number):
  """Returns a passage's tokens, and the latents and values of each."""
  texts = reading.read_texts(demo.features).to_pylist()
  rows = reading.read_text_firings(demo.features, member['id']).to_pylist()
  rows = [row for row in rows if row['text'] == texts[number]['text']]
  return texts[number]['tokens'], [
      (row['latents'], row['values'])
      for row in sorted(rows, key=lambda row: row['index'])
  ]


def _pane(page, member):
  return page.get_by_role('heading', name=member['link'], exact=True).locator(
      'xpath=ancestor::section'
  )


def _text(pane):
  return pane.get_by_role('group', name=re.compile('^Text'))


def _active(pane):
  """Returns (latent, shown value) of the selected token's table."""
  rows = pane.get_by_role('table').first.locator('tbody').get_by_role('row')
  texts = [row.locator('td').all_text_contents() for row in rows.all()]
  return [(int(cells[0]), cells[3]) for cells in texts]


@pytest.fixture
def members(demo):
  return [demo.member(number=0), demo.member(site='mlp_out', number=1)]


@pytest.fixture
def page(open_demo, members):
  page = open_demo()
  page.get_by_role('link', name='Texts').click()
  page.get_by_role('combobox', name='Member', exact=True).select_option(
      members[0]['link']
  )
  page.get_by_role('combobox', name='Compare with').select_option(
      members[1]['link']
  )
  return page


def test_two_members_show_their_latents_of_a_token(page, demo, members):
  page.get_by_role('combobox', name='Passage').select_option(index=2)
  for token in (0, 7, 40):
    _text(_pane(page, members[0])).locator(':scope > *').nth(token).click()
    for member in members:
      tokens, active = _passage(demo, member, 2)
      pane = _pane(page, member)
      assert pages.plain_tokens(_text(pane)) == demo.plain(tokens)
      latents, values = active[token]
      shown = _active(pane)
      assert len(shown) == min(12, len(latents))
      for (latent, text), expected, value in zip(
          shown, latents, values, strict=False
      ):
        assert latent == expected
        assert pages.equal(text, value)
      title = pane.get_by_role('heading', level=3).first.inner_text()
      assert title.endswith(f'L0 {len(latents)}')


def test_the_mean_l0_is_that_of_the_passage(page, demo, members):
  for member in members:
    _, active = _passage(demo, member, 0)
    mean = np.mean([len(latents) for latents, _ in active])
    text = _pane(page, member).get_by_text('Mean L0').inner_text()
    assert pages.equal(re.search(r'([\d.]+)\.$', text)[1], mean)


def test_the_text_is_coloured_by_a_latent(page, demo, members):
  member = members[0]
  pane = _pane(page, member)
  _, active = _passage(demo, member, 0)
  largest = {}
  for latents, values in active:
    for latent, value in zip(latents, values, strict=True):
      largest[latent] = max(largest.get(latent, 0), value)
  best = max(largest, key=largest.get)
  table = pane.get_by_role('table').last
  first = table.locator('tbody').get_by_role('row').first
  cells = first.locator('td').all_text_contents()
  assert int(cells[0]) == best
  assert pages.equal(cells[3], largest[best])
  first.get_by_role('button', name='heat').click()
  group = _text(pane)
  expect(group).to_have_accessible_name(re.compile(f'latent {best}$'))
  at = int(np.argmax([dict(zip(*a, strict=True)).get(best, 0) for a in active]))
  group.locator(':scope > *').nth(at).hover()
  tip = page.get_by_role('tooltip').inner_text()
  assert pages.equal(
      re.search(rf'latent {best}\s+(\S+)', tip)[1], largest[best]
  )


def test_a_comparison_has_an_address_of_its_own(page, open_demo, members):
  page.get_by_role('combobox', name='Passage').select_option(index=3)
  texts = [_text(_pane(page, member)).text_content() for member in members]
  again = open_demo(page.url.split('#', 1)[1])
  for member, text in zip(members, texts, strict=True):
    assert _text(_pane(again, member)).text_content() == text


def test_a_latent_of_a_text_opens(page, members):
  pane = _pane(page, members[1])
  link = pane.get_by_role('table').last.get_by_role('link').first
  number = link.inner_text()
  link.click()
  expect(page).to_have_url(re.compile(f'#{members[1]["link"]}/{number}$'))
  expect(page.get_by_role('heading', level=1)).to_contain_text(number)


def test_a_latent_leads_to_the_text_on_which_it_is_strongest(open_demo, demo):
  member = demo.member(site='mlp_out')
  rows = reading.read_text_firings(demo.features, member['id']).to_pylist()
  best = {}
  for row in rows:
    for latent, value in zip(row['latents'], row['values'], strict=True):
      best[latent] = max(best.get(latent, (0, 0)), (value, row['text']))
  latent = next(n for n, (_, text) in best.items() if text == 5)
  page = open_demo(f'{member["link"]}/{latent}')
  page.get_by_role('link', name='In texts').click()
  group = _text(_pane(page, member))
  expect(group).to_have_accessible_name(re.compile(f'latent {latent}$'))
  passage = page.get_by_role('combobox', name='Passage')
  assert passage.evaluate('e => e.selectedIndex') == 5
