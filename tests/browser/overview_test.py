"""The overview: members with their results, charts, random latents, footer."""

import re

import numpy as np
import pytest

from jumprelu.features import reading
from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

# (heading of the column, field of the results).
_COLUMNS = (
    ('L0', 'l0'),
    ('FVU', 'fvu'),
    ('PCA FVU', 'pca_fvu'),
    ('Delta loss', 'delta_loss'),
    ('Recovered', 'loss_recovered'),
    ('Dead', 'dead_share'),
    ('Dense', 'dense_share'),
    ('Coefficient', 'sparsity_coefficient'),
    ('Tokens', 'tokens_trained'),
)


def _table(page):
  """Returns the headings of the members' table, and its rows of texts."""
  table = page.get_by_role('table', name='Members of the suite')
  headings = table.get_by_role('columnheader').all_inner_texts()
  rows = table.locator('tbody').get_by_role('row').all()
  return [text.strip() for text in headings], [
      row.locator('th, td').all_inner_texts() for row in rows
  ]


def test_the_table_has_each_member_with_its_results(open_demo, demo):
  headings, rows = _table(open_demo())
  assert len(rows) == len(demo.members) == len(demo.results)
  by_link = {row[0].strip(): row for row in rows}
  for member in demo.members:
    row, results = by_link[member['link']], demo.results[member['id']]
    for heading, field in _COLUMNS:
      text = row[headings.index(heading)]
      assert pages.equal(text, results[field]), (member['id'], heading, text)
    latents = demo.rows(member)
    few = np.mean([len(r['examples']) < 10 for r in latents])
    never = sum(r['count'] == 0 for r in latents)
    assert pages.equal(row[headings.index('< 10 examples')], few)
    assert pages.shown(row[headings.index('Never fired')]) == never


@pytest.mark.parametrize(('heading', 'field'), [('L0', 'l0'), ('FVU', 'fvu')])
def test_a_heading_sorts_by_its_values_both_ways(
    open_demo, demo, heading, field
):
  page = open_demo()
  button = page.get_by_role('button', name=heading, exact=True).last
  by_value = sorted(demo.members, key=lambda m: m['results'][field])
  links = [m['link'] for m in by_value]
  header = page.get_by_role('columnheader', name=heading, exact=True)
  orders = []
  for _ in range(2):
    button.click()
    expect(header).to_have_attribute('aria-sort', re.compile('ending'))
    order = header.get_attribute('aria-sort')
    orders.append(order)
    _, rows = _table(page)
    expected = links if order == 'ascending' else links[::-1]
    assert [row[0].strip() for row in rows] == expected
  assert set(orders) == {'ascending', 'descending'}


def _hover_all(page, chart, *, step=20):
  """Yields the tooltip's text and the place, at points of a chart."""
  chart.scroll_into_view_if_needed()
  box = chart.bounding_box()
  tooltip = page.get_by_role('tooltip')
  for x in np.arange(box['x'] + 40, box['x'] + box['width'], step):
    for y in np.arange(box['y'] + 10, box['y'] + box['height'] - 30, step):
      page.mouse.move(x, y)
      if tooltip.is_visible():
        yield tooltip.inner_text(), (x, y)


def test_points_of_the_frontier_open_their_members(open_demo, demo):
  page = open_demo()
  chart = page.get_by_role('img', name=re.compile('against L0'))
  points = {}
  for text, place in _hover_all(page, chart):
    for member in demo.members:
      if re.search(rf'{member["link"]}(?!\d)', text):
        points.setdefault(member['link'], (place, text))
  assert set(points) == {m['link'] for m in demo.members}
  member = demo.member(number=0)
  place, text = points[member['link']]
  numbers = [
      pages.shown(t) for t in re.findall(r'(?<![\w/])[\d.]+(?=\s|$)', text)
  ]
  for field in ('l0', 'fvu'):
    value = member['results'][field]
    assert any(abs(n - value) < 0.006 * value for n in numbers), (field, text)
  page.mouse.move(*place)
  page.mouse.click(*place)
  expect(page.get_by_role('heading', level=1)).to_contain_text(member['link'])


_INK = """element => [...element.querySelectorAll('canvas')].map(canvas => {
  const {data} = canvas.getContext('2d').getImageData(
      0, 0, canvas.width, canvas.height);
  const colors = new Set();
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] > 200) colors.add(data[i] + ',' + data[i+1] + ',' + data[i+2]);
  return colors.size;
})"""


def test_curves_and_densities_are_drawn(open_demo, demo):
  page = open_demo()
  charts = page.get_by_role(
      'img', name=re.compile('during training|by their freq')
  )
  expect(charts.first).to_be_visible()
  names = charts.evaluate_all('all => all.map(e => e.ariaLabel)')
  measures = {name.split(' during')[0] for name in names if 'during' in name}
  assert {'L0', 'FVU', 'Loss', 'Dead latents'} <= measures
  for chart in charts.all():
    chart.scroll_into_view_if_needed()
    page.wait_for_timeout(50)
    (colors,) = chart.evaluate(_INK)
    assert colors > 5, chart.get_attribute('aria-label')
  sites = {m['site'] for m in demo.members}
  options = page.get_by_label('Members').last.get_by_role('option')
  assert set(options.all_inner_texts()) == sites


def _random_links(page):
  card = page.get_by_role('heading', name='Random latents').locator(
      'xpath=ancestor::section'
  )
  links = card.get_by_role('listitem').get_by_role('link')
  expect(links.first).to_be_visible()
  return [link.get_attribute('href') for link in links.all()]


def test_reshuffling_draws_other_latents_of_all_members(open_demo, demo):
  page = open_demo()
  draws, previous = [], None
  for _ in range(12):
    links = _random_links(page)
    assert len(set(links)) == len(links) >= 4
    assert links != previous
    draws += links
    page.get_by_role('button', name='Reshuffle').click()
    page.wait_for_function(
        'first => !document.querySelector(`main li a[href="${first}"]`)',
        arg=links[0],
    )
    previous = links
  known = {f'#{m["link"]}': m['width'] for m in demo.members}
  members, latents = zip(*(link.rsplit('/', 1) for link in draws), strict=True)
  assert set(members) <= set(known) and len(set(members)) >= 6
  numbers = [int(n) / known[m] for m, n in zip(members, latents, strict=True)]
  # Uniform: each third has its share of about 60 draws.
  counts, _ = np.histogram(numbers, 3, range=(0, 1))
  assert min(counts) >= 6


def test_random_latents_show_their_strongest_example(open_demo, demo):
  page = open_demo()
  by_link = {m['link']: m for m in demo.members}
  for link in _random_links(page):
    name, _, latent = link[1:].rpartition('/')
    row = demo.rows(by_link[name])[int(latent)]
    item = page.get_by_role('listitem').filter(
        has=page.locator(f'a[href="{link}"]')
    )
    if not row['examples']:
      continue
    tokens = row['examples'][0]['tokens']
    shown = pages.plain_tokens(item.get_by_role('group'))
    assert shown == demo.plain(tokens)


def test_the_footer_names_model_text_and_tokens(open_demo, demo):
  text = open_demo().get_by_role('contentinfo').inner_text()
  manifest = reading.read_manifest(demo.features)
  rows = [row for member in demo.members for row in demo.rows(member)]
  few = np.mean([len(row['examples']) < 10 for row in rows])
  assert manifest['model']['name'] in text
  assert manifest['model']['digest'][:8] in text
  assert manifest['text']['source'] in text
  assert 'held-out' in text
  assert f'{manifest["tokens"]:,} tokens' in text
  assert f'{manifest["documents"]} documents' in text
  share = re.search(r'([\d.]+%) of [\d,]+ latents have fewer than 10', text)
  assert pages.equal(share[1], few)
  assert f'{sum(r["count"] == 0 for r in rows)} never fired' in text
