"""Search finds the latents whose lists in the files have the words."""

import re

import pytest

from tests.browser.pages import expect

pytestmark = pytest.mark.browser

_PLACES = ('Top tokens', 'Promoted', 'Contexts', 'Label')


def _tokens(row, place):
  if place == 'Top tokens':
    return {e['token'] for e in row['top_tokens']}
  if place == 'Promoted':
    return {e['token'] for e in row['promoted']}
  return {t for e in row['examples'] for t in e['tokens']}


def _expected(demo, members, words, place):
  """Returns {'link/latent'}: each word is in some token of the list."""
  pieces = [piece.lower() for piece in demo.pieces]
  matching = [
      {t for t, piece in enumerate(pieces) if word in piece} for word in words
  ]
  return {
      f'{member["link"]}/{row["latent"]}'
      for member in members
      for row in demo.rows(member)
      if all(_tokens(row, place) & tokens for tokens in matching)
  }


def _only(page, *places):
  """Searches in some places only."""
  for place in _PLACES:
    page.get_by_role('group', name='Where').get_by_label(place).set_checked(
        place in places
    )


def _count(page):
  status = page.get_by_role('main').get_by_role('status')
  expect(status).to_contain_text(re.compile(r'latent'))
  match = re.search(r'([\d,]+) latents?', status.inner_text())
  return int(match[1].replace(',', '')) if match else 0


def _results(page):
  """Returns the links of all results, by scrolling."""
  region = page.get_by_role('region', name=re.compile('^Latents that match'))
  region.evaluate('e => { e.scrollTop = 0; }')
  seen = set()
  for _ in range(200):
    page.evaluate('() => new Promise(requestAnimationFrame)')
    page.evaluate('() => new Promise(requestAnimationFrame)')
    hrefs = region.get_by_role('link').evaluate_all(
        'all => all.map(a => a.getAttribute("href").slice(1))'
    )
    seen |= set(hrefs)
    if region.evaluate(
        'e => { const old = e.scrollTop; e.scrollTop += e.clientHeight - 90;'
        ' return e.scrollTop === old; }'
    ):
      return seen
  raise AssertionError('the results do not end')


def _search(page, text, *, member=None):
  page.keyboard.press('/')
  field = page.get_by_role('banner').get_by_role('searchbox')
  expect(field).to_be_focused()
  field.fill(text)
  expect(page).to_have_url(re.compile('#search'))
  expect(page.get_by_role('group', name='Where')).to_be_visible()
  if member:
    page.get_by_role('combobox', name='In', exact=True).select_option(
        member['link']
    )


@pytest.mark.parametrize('place', ['Top tokens', 'Promoted', 'Contexts'])
@pytest.mark.parametrize('word', ['lineno', 'CodecInfo'])
def test_one_member_is_searched_in_each_place(open_demo, demo, place, word):
  member = demo.member()
  page = open_demo()
  _search(page, word, member=member)
  _only(page, place)
  expected = _expected(demo, [member], [word.lower()], place)
  page.wait_for_timeout(300)
  if not expected:
    assert _count(page) == 0 or 'No latent' in page.inner_text('main')
    return
  assert _count(page) == len(expected)
  assert _results(page) == expected


def test_all_members_and_places_are_searched_at_once(open_demo, demo):
  word = 'codecinfo'
  page = open_demo(demo.member()['link'])
  _search(page, word)
  page.get_by_role('combobox', name='In', exact=True).select_option(
      'All members'
  )
  expected = set().union(
      *(_expected(demo, demo.members, [word], place) for place in _PLACES[:3])
  )
  assert len(expected) > 20
  page.wait_for_timeout(500)
  assert _count(page) == len(expected)
  assert _results(page) == expected


def test_several_words_must_all_be_in_one_list(open_demo, demo):
  member = demo.member(number=0)
  page = open_demo()
  _search(page, 'codecinfo self', member=member)
  _only(page, 'Contexts')
  page.wait_for_timeout(300)
  expected = _expected(demo, [member], ['codecinfo', 'self'], 'Contexts')
  assert _count(page) == len(expected) > 0
  assert _results(page) == expected


def test_a_latent_whose_top_token_is_the_word_comes_first(open_demo, demo):
  member = demo.member()
  word = 'lineno'
  page = open_demo()
  _search(page, word, member=member)
  _only(page, 'Top tokens')
  page.wait_for_timeout(300)
  region = page.get_by_role('region', name=re.compile('^Latents that match'))
  first = region.get_by_role('link').first.get_attribute('href')
  row = demo.rows(member)[int(first.rsplit('/', 1)[1])]
  tops = [demo.pieces[e['token']].strip() for e in row['top_tokens']]
  assert word in tops


def test_labels_and_notes_are_found(open_demo, demo):
  member = demo.member()
  page = open_demo(f'{member["link"]}/5')
  page.get_by_label('Label', exact=True).fill('Zebra crossings')
  page.get_by_label('Note', exact=True).fill('quaggas too')
  page.get_by_label('Note', exact=True).blur()
  page.keyboard.press('Escape')
  for word in ('zebra', 'QUAGGAS'):
    _search(page, word)
    region = page.get_by_role('region', name=re.compile('^Latents that match'))
    link = region.get_by_role('link')
    expect(link).to_have_count(1)
    assert link.get_attribute('href') == f'#{member["link"]}/5'
  expect(region).to_contain_text('Zebra crossings')


def test_a_word_that_no_latent_has_gets_one_line(open_demo):
  page = open_demo()
  _search(page, 'xqzxqz')
  expect(page.get_by_role('main').get_by_role('status')).to_contain_text(
      'No latent'
  )


def test_a_search_has_an_address_of_its_own(open_demo, demo):
  page = open_demo()
  member = demo.member()
  _search(page, 'lineno', member=member)
  _only(page, 'Promoted')
  page.wait_for_timeout(300)
  expected = _results(page)
  again = open_demo(page.url.split('#', 1)[1])
  expect(again.get_by_role('group', name='Where')).to_be_visible()
  expect(again.get_by_role('banner').get_by_role('searchbox')).to_have_value(
      'lineno'
  )
  assert _results(again) == expected
