"""A member: its table scrolls, sorts and filters as the files' data do."""

import re

import numpy as np
import pytest

from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

_COLUMNS = {
    'Frequency': 'frequency',
    'Mean': 'mean',
    'Largest': 'largest',
    'Threshold': 'threshold',
    'Entropy': 'token_entropy',
    'Enc. cosine': 'encoder_cosine',
    'Dec. norm': 'decoder_norm',
}


@pytest.fixture
def member(demo):
  # Some of its latents never fired. Which members have such ones depends on the
  # processor's rounding.
  return max(demo.members, key=lambda member: member['results']['dead_share'])


@pytest.fixture
def page(open_demo, member):
  page = open_demo(member['link'])
  expect(_rows(page).first).to_be_visible()
  return page


def _table(page):
  return page.get_by_role('table', name=re.compile('^Latents of'))


def _rows(page):
  """Returns the rows of latents that exist at the moment."""
  return _table(page).locator('tbody').get_by_role('row')


def _latents(page):
  """Returns the numbers of the rows that exist, in the shown order."""
  texts = _rows(page).get_by_role('rowheader').all_inner_texts()
  return [int(text) for text in texts]


def _count(page):
  """Returns the number of latents that the page states."""
  texts = page.get_by_role('status').all_inner_texts()
  (text,) = [t for t in texts if 'latent' in t and re.match(r'[\d,]', t)]
  return int(text.split()[0].replace(',', ''))


def _set_range(page, column, text):
  page.get_by_role('textbox', name=f'Range of {column}').fill(text)


def _all_latents(page):
  """Returns all latents of the table, by scrolling through it."""
  region = page.get_by_role('region', name=re.compile('^Latents of'))
  region.evaluate('e => { e.scrollTop = 0; }')
  seen = []
  for _ in range(200):
    page.evaluate('() => new Promise(requestAnimationFrame)')
    page.evaluate('() => new Promise(requestAnimationFrame)')
    seen += [n for n in _latents(page) if n not in seen]
    if region.evaluate(
        'e => { const old = e.scrollTop; e.scrollTop += e.clientHeight;'
        ' return e.scrollTop === old; }'
    ):
      return seen
  raise AssertionError('the table does not end')


def test_scrolling_reaches_each_latent_and_few_rows_exist(page, member):
  assert _all_latents(page) == list(range(member['width']))
  assert _rows(page).count() < 100
  last = member['width'] - 1
  _table(page).get_by_role('link', name=str(last), exact=True).click()
  expect(page.get_by_role('heading', level=1)).to_contain_text(f'{last}')


def test_rows_show_the_values_of_the_files(page, member, demo):
  headings = [
      text.strip()
      for text in _table(page).get_by_role('columnheader').all_inner_texts()
  ]
  data = demo.rows(member)
  for row in _rows(page).all():
    cells = row.locator('th, td').all_text_contents()
    latent = data[int(cells[0])]
    for heading, field in _COLUMNS.items():
      text = cells[headings.index(heading)]
      assert pages.equal(text, latent[field]), (heading, text, latent[field])
    for heading, field in (
        ('Top token', 'top_tokens'),
        ('Promoted', 'promoted'),
    ):
      if latent[field]:
        piece = demo.pieces[latent[field][0]['token']]
        assert pages.plain(cells[headings.index(heading)]) == pages.plain(piece)
    assert int(cells[headings.index('Examples')]) == len(latent['examples'])


@pytest.mark.parametrize('heading', ['Frequency', 'Threshold', 'Entropy'])
def test_sorting_is_that_of_the_data(page, member, demo, heading):
  values = [row[_COLUMNS[heading]] for row in demo.rows(member)]
  values = np.array([np.nan if v is None else v for v in values], np.float32)
  header = page.get_by_role('columnheader', name=heading, exact=True)
  for _ in range(2):
    header.get_by_role('button').click()
    shown = values[_all_latents(page)]
    known = shown[~np.isnan(shown)]
    # Latents without a value are last, in both orders.
    np.testing.assert_array_equal(shown[: len(known)], known)
    sign = 1 if header.get_attribute('aria-sort') == 'ascending' else -1
    np.testing.assert_array_equal(known, sign * np.sort(sign * known))
    assert len(shown) == member['width']


@pytest.mark.parametrize(
    ('column', 'text', 'fits'),
    [
        ('Frequency', '1%..5%', lambda x: 0.01 <= x <= 0.05),
        ('Frequency', '> 0.1', lambda x: x > 0.1),
        ('Largest', '<5', lambda x: x < 5),
        ('Mean', '1.5', lambda x: x >= 1.5),
    ],
)
def test_ranges_keep_the_latents_within(page, member, demo, column, text, fits):
  _set_range(page, column, text)
  values = [row[_COLUMNS[column]] for row in demo.rows(member)]
  expected = [
      i for i, x in enumerate(values) if x is not None and fits(np.float32(x))
  ]
  assert 0 < len(expected) < member['width']
  assert _count(page) == len(expected)
  assert _all_latents(page) == expected


def test_two_ranges_and_a_text_all_apply_and_reset_removes_them(
    page, member, demo
):
  rows = demo.rows(member)
  _set_range(page, 'Frequency', '0.5%..20%')
  _set_range(page, 'Entropy', '>2')
  text = page.get_by_role('searchbox', name='Filter by token or label')
  text.fill('Se')
  expected = []
  for i, row in enumerate(rows):
    first = [row[f][0]['token'] for f in ('top_tokens', 'promoted') if row[f]]
    texts = [demo.pieces[t].lower() for t in first]
    if (
        0.005 <= row['frequency'] <= 0.2
        and row['token_entropy'] > 2
        and any('se' in t for t in texts)
    ):
      expected.append(i)
  assert expected
  assert _count(page) == len(expected)
  assert _latents(page) == expected
  page.get_by_role('button', name='Reset').click()
  assert _count(page) == member['width']
  assert text.input_value() == ''


def test_a_wrong_range_is_marked_and_changes_nothing(page, member):
  _set_range(page, 'Mean', 'many')
  field = page.get_by_role('textbox', name='Range of Mean')
  expect(field).to_have_attribute('aria-invalid', 'true')
  assert _count(page) == member['width']


@pytest.mark.parametrize(
    ('preset', 'fits'),
    [
        ('Dead', lambda row: row['count'] == 0),
        ('Dense', lambda row: row['frequency'] > 0.1),
        ('< 10 examples', lambda row: len(row['examples']) < 10),
    ],
)
def test_presets_show_the_latents_of_their_names(
    page, member, demo, preset, fits
):
  page.get_by_role('button', name=preset, exact=True).click()
  expected = [i for i, row in enumerate(demo.rows(member)) if fits(row)]
  assert expected
  assert _count(page) == len(expected)
  assert _all_latents(page) == expected


def test_the_way_back_keeps_filters_and_place(page, member):
  _set_range(page, 'Frequency', '>1%')
  count = _count(page)
  _rows(page).nth(3).get_by_role('link').click()
  expect(page.get_by_role('heading', level=1)).to_contain_text('Latent')
  page.go_back()
  expect(_table(page)).to_be_visible()
  assert _count(page) == count
  field = page.get_by_role('textbox', name='Range of Frequency')
  expect(field).to_have_value('>1%')
