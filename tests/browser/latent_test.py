"""A latent: all values are the files', and its links and keys work."""

import re

import numpy as np
import pytest

from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser


def _cases(demo):
  """Returns (member, latent) of all sites: common, rare and silent latents."""
  cases = []
  for site in sorted({m['site'] for m in demo.members}):
    member = demo.member(site=site)
    count = [row['count'] for row in demo.rows(member)]
    order = np.argsort(count)
    cases += [(member, int(i)) for i in (order[0], order[len(order) // 2])]
  cases.append((demo.member(), 172))
  return cases


@pytest.fixture
def page(open_demo):
  return open_demo('search')


def _go(page, member, latent):
  pages.follow(page, f'{member["link"]}/{latent}')
  expect(page.get_by_role('heading', level=1)).to_contain_text(f'{latent}')
  expect(page.get_by_role('heading', name='Examples')).to_be_visible()


def _section(page, heading):
  return page.get_by_role('heading', name=heading, exact=True).locator(
      'xpath=ancestor::section'
  )


def _records(table):
  """Returns the texts of a small table's rows, without its headings."""
  rows = table.locator('tbody').get_by_role('row').all()
  return [row.locator('td, th').all_text_contents() for row in rows]


def test_facts_are_the_values_of_the_files(page, demo):
  for member, latent in _cases(demo):
    _go(page, member, latent)
    row = demo.rows(member)[latent]
    terms = page.get_by_role('main').get_by_role('term').all_inner_texts()
    texts = (
        page.get_by_role('main').get_by_role('definition').all_text_contents()
    )
    facts = dict(zip(terms, texts, strict=True))
    for name, field in (
        ('Frequency', 'frequency'),
        ('Mean', 'mean'),
        ('Largest', 'largest'),
        ('Threshold', 'threshold'),
        ('Token entropy', 'token_entropy'),
        ('Encoder cosine', 'encoder_cosine'),
        ('Decoder norm', 'decoder_norm'),
    ):
      if row[field] is None and name not in facts:
        continue
      assert pages.equal(facts[name], row[field]), (latent, name, facts[name])
    assert f'{row["count"]:,} token' in facts['Frequency']
    assert pages.shown(facts['Examples']) == len(row['examples'])
    if row['top_tokens']:
      piece = demo.pieces[row['top_tokens'][0]['token']]
      assert pages.plain(facts['Top token']) == pages.plain(piece)


def test_lists_of_tokens_are_those_of_the_files(page, demo):
  for member, latent in _cases(demo):
    _go(page, member, latent)
    row = demo.rows(member)[latent]
    for name in ('promoted', 'suppressed'):
      table = page.get_by_role('table', name=name.capitalize())
      records = _records(table)
      assert len(records) == len(row[name])
      for texts, entry in zip(records, row[name], strict=True):
        assert pages.plain(texts[0]) == pages.plain(demo.pieces[entry['token']])
        assert pages.equal(texts[-1], entry['effect']), texts
    card = _section(page, 'Top tokens')
    records = _records(card)
    assert len(records) == len(row['top_tokens'])
    for texts, entry in zip(records, row['top_tokens'], strict=True):
      assert pages.plain(texts[0]) == pages.plain(demo.pieces[entry['token']])
      assert pages.equal(texts[-2], entry['mean']), texts
      assert pages.shown(texts[-1]) == entry['count']


def test_neighbours_and_coactive_latents_are_those_of_the_files(page, demo):
  links = {m['id']: m['link'] for m in demo.members}
  for member, latent in _cases(demo):
    _go(page, member, latent)
    row = demo.rows(member)[latent]
    for heading, field, value in (
        ('Neighbours in this member', 'neighbours', 'cosine'),
        ('In other members', 'neighbours_elsewhere', 'cosine'),
        ('Fires together with', 'coactive', 'jaccard'),
    ):
      card = _section(page, heading)
      records = _records(card)
      assert len(records) == len(row[field]), heading
      for texts, entry in zip(records, row[field], strict=True):
        link = links[entry.get('member', member['id'])]
        number = entry['latent']
        assert texts[0] in (str(number), f'{link}/{number}')
        assert pages.equal(texts[-1], entry[value]), (heading, texts)
        anchor = card.locator(f'a[href="#{link}/{number}"]')
        assert anchor.count() >= 1
    # Each shows its top token.
    near = row['neighbours'][0]
    top = demo.rows(member)[near['latent']]['top_tokens']
    if top:
      first = _section(page, 'Neighbours in this member').get_by_role('row')
      text = demo.pieces[top[0]['token']]
      cell = first.filter(has=page.get_by_role('link')).first.get_by_role(
          'code'
      )
      assert pages.plain(cell.text_content()) == pages.plain(text)


_EXAMPLES = """panel => [...panel.querySelectorAll('li')].map(item => {
  const group = item.querySelector('[role="group"]');
  return {text: item.textContent, name: group.ariaLabel,
    tokens: [...group.children].map(token => {
      const style = getComputedStyle(token);
      return {text: token.textContent, color: style.backgroundColor,
        underlined: style.textDecorationLine.includes('underline')
            || style.borderBottomStyle !== 'none' && style.borderBottomWidth !== '0px'
            || style.boxShadow !== 'none'};
    })};
})"""


def _kinds(row):
  """Returns the examples of each tab, as its name begins."""
  bands = sorted({e['band'] for e in row['band_examples']})
  return {
      'Strongest': row['examples'],
      **{
          f'Band {band + 1}': [
              e for e in row['band_examples'] if e['band'] == band
          ]
          for band in bands
      },
      'Silent': row['silent_examples'],
  }


# Puts any CSS colour on a canvas, and reads its red, green and blue.
_RGB = """colors => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  return colors.map(color => {
    context.fillStyle = '#ffffff';
    context.fillRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  });
}"""


def test_examples_of_each_tab_have_their_tokens_and_heat(page, demo):
  for member, latent in _cases(demo):
    _go(page, member, latent)
    row = demo.rows(member)[latent]
    for name, examples in _kinds(row).items():
      if not examples and name != 'Strongest':
        continue
      page.get_by_role('tab', name=re.compile(f'^{name}\\b')).click()
      panel = page.get_by_role('tabpanel', name=name)
      items = panel.evaluate(_EXAMPLES)
      assert len(items) == len(examples), (member['id'], latent, name)
      for item, example in zip(items, examples, strict=True):
        texts = [pages.plain(token['text']) for token in item['tokens']]
        assert texts == demo.plain(example['tokens'])
        marked = [i for i, t in enumerate(item['tokens']) if t['underlined']]
        assert marked == [example['index']]
        if example['value']:
          value = re.search(r'activation (\S+)', item['name'])[1]
          assert pages.equal(value, example['value'])
          assert item['text'].startswith(value)
        colors = page.evaluate(_RGB, [t['color'] for t in item['tokens']])
        heat = -np.sum(colors, axis=1)
        order = np.argsort(example['values'], kind='stable')
        # Darker for larger activations, and none for silent tokens.
        assert (np.diff(heat[order]) >= 0).all(), (latent, name)
        silent = np.asarray(example['values']) == 0
        if silent.any() and not silent.all():
          assert heat[~silent].min() > heat[silent].max()


def test_pointing_at_a_token_shows_its_numbers(page, demo):
  member, latent = demo.member(), 172
  _go(page, member, latent)
  example = demo.rows(member)[latent]['examples'][0]
  group = page.get_by_role('tabpanel').get_by_role('group').first
  for i in (example['index'], 0, len(example['tokens']) - 1):
    group.locator(':scope > *').nth(i).hover()
    text = page.get_by_role('tooltip').inner_text()
    value = example['values'][i]
    numbers = dict(re.findall(r'(activation|token id|position)\s+(\S+)', text))
    if value:
      assert pages.equal(numbers['activation'], value)
    else:
      assert numbers['activation'] == 'silent'
    assert pages.shown(numbers['token id']) == example['tokens'][i]
    position = example['offset'] - example['index'] + i
    assert pages.shown(numbers['position']) == position


def test_arrow_keys_move_over_the_tokens_of_an_example(page, demo):
  member, latent = demo.member(), 172
  _go(page, member, latent)
  example = demo.rows(member)[latent]['examples'][0]
  group = page.get_by_role('tabpanel').get_by_role('group').first
  group.focus()
  page.keyboard.press('ArrowLeft')
  page.keyboard.press('ArrowLeft')
  text = page.get_by_role('tooltip').inner_text()
  token = example['tokens'][max(0, example['index'] - 2)]
  assert f'{token:,}' in text
  expect(page).to_have_url(re.compile(f'/{latent}$'))  # No other latent.


# Columns of a chart's canvas with its colour: [x, share of rows] of the dashes
# of the threshold, whose colour has the given red, green and blue.
_COLUMNS = """(chart, [r, g, b]) => {
  const canvas = chart.querySelector('canvas');
  const {width, height} = canvas;
  const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
  const out = [];
  for (let x = 0; x < width; x++) {
    let n = 0;
    for (let y = 0; y < height; y++) {
      const i = 4 * (y * width + x);
      if (data[i + 3] > 100 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g)
          + Math.abs(data[i + 2] - b) < 60) n++;
    }
    out.push(n / height);
  }
  return {width, columns: out};
}"""


def _axis(page, chart):
  """Returns a function from a bin's middle to the x at which it is hovered."""
  box = chart.bounding_box()
  spans = {}
  for x in np.arange(box['x'], box['x'] + box['width'], 3):
    page.mouse.move(x, box['y'] + box['height'] * 0.6)
    tooltip = page.get_by_role('tooltip')
    if tooltip.is_visible():
      spans.setdefault(tooltip.inner_text(), []).append(x - box['x'])
  return spans


def test_the_histogram_has_the_counts_and_the_threshold_in_its_bin(page, demo):
  member, latent = demo.member(), 172
  _go(page, member, latent)
  row = demo.rows(member)[latent]
  edges = demo.index['histogram_edges']
  chart = page.get_by_role('img', name=re.compile('^Histogram of'))
  name = chart.get_attribute('aria-label')
  assert f'{row["count"]:,} activations' in name
  assert pages.equal(name.split()[-1], row['threshold'])
  chart.scroll_into_view_if_needed()
  spans, marks, counts = _axis(page, chart), [], {}
  for text, places in spans.items():
    low, high, count = re.search(
        r'activation\s+(\S+) to (\S+)\s+tokens\s+(\S+)', text
    ).groups()
    low, high = pages.shown(low), pages.shown(high)
    i = int(np.argmin(np.abs(np.log(np.array(edges) / low))))
    counts[i + 1] = int(pages.shown(count))
    marks.append((np.mean(places), np.log2(low * high) / 2))
  for i, count in counts.items():
    assert count == row['histogram'][i]
  assert sum(counts.values()) == row['count']
  # The line is where its value is on the axis that the bins define.
  slope, offset = np.polyfit([m[1] for m in marks], [m[0] for m in marks], 1)
  expected = slope * np.log2(row['threshold']) + offset
  (rgb,) = page.evaluate(
      _RGB,
      [
          page.evaluate(
              "getComputedStyle(document.documentElement).getPropertyValue('--accent')"
          )
      ],
  )
  drawn = chart.evaluate(_COLUMNS, rgb)
  scale = chart.bounding_box()['width'] / drawn['width']
  line = int(np.argmax(drawn['columns'])) * scale
  assert max(drawn['columns']) > 0.3
  assert line == pytest.approx(expected, abs=3)


def test_the_positions_have_the_counts_of_the_files(page, demo):
  member, latent = demo.member(), 172
  _go(page, member, latent)
  chart = page.get_by_role('img', name=re.compile('by position'))
  chart.scroll_into_view_if_needed()
  shown = set()
  for text in _axis(page, chart):
    numbers = re.search(r'tokens\s+(\S+) of (\S+)', text).groups()
    shown.add(tuple(int(pages.shown(n)) for n in numbers))
  profile = demo.rows(member)[latent]['position_profile']
  pairs = zip(profile, demo.index['position_totals'], strict=True)
  assert shown == {(n, total) for n, total in pairs if total}


def test_links_lead_to_neighbours_here_and_in_other_members(page, demo):
  member, latent = demo.member(), 172
  row = demo.rows(member)[latent]
  links = {m['id']: m['link'] for m in demo.members}
  elsewhere = row['neighbours_elsewhere'][0]
  for heading, path, number in (
      (
          'Neighbours in this member',
          member['id'],
          row['neighbours'][0]['latent'],
      ),
      ('In other members', elsewhere['member'], elsewhere['latent']),
      ('Fires together with', member['id'], row['coactive'][0]['latent']),
  ):
    _go(page, member, latent)
    _section(page, heading).get_by_role('link').first.click()
    expect(page).to_have_url(re.compile(f'#{links[path]}/{number}$'))
    expect(page.get_by_role('heading', level=1)).to_contain_text(f'{number}')


def test_previous_and_next_by_links_and_keys(page, demo):
  link = demo.member()['link']
  _go(page, demo.member(), 172)
  for act, number in (
      (lambda: page.get_by_role('link', name='Next').click(), 173),
      (lambda: page.get_by_role('link', name='Previous').click(), 172),
      (lambda: page.keyboard.press('ArrowRight'), 173),
      (lambda: page.keyboard.press('ArrowLeft'), 172),
      (lambda: page.keyboard.press('j'), 173),
      (lambda: page.keyboard.press('k'), 172),
  ):
    act()
    expect(page).to_have_url(re.compile(f'#{link}/{number}$'))
    expect(page.get_by_role('heading', level=1)).to_contain_text(f'{number}')
  page.keyboard.press('u')
  expect(page).to_have_url(re.compile(f'#{link}$'))


def test_permanent_links_open_and_history_goes_both_ways(open_demo, demo):
  member = demo.member()
  page = open_demo(f'{member["link"]}/172')
  heading = page.get_by_role('heading', level=1)
  expect(heading).to_contain_text('172')
  pages.follow(page, f'{member["id"]}/173')  # By its path.
  expect(heading).to_contain_text('173')
  pages.follow(page, member['link'])
  expect(heading).to_contain_text(member['link'])
  page.go_back()
  expect(heading).to_contain_text('173')
  page.go_back()
  expect(heading).to_contain_text('172')
  page.go_forward()
  expect(heading).to_contain_text('173')
  page.reload()
  expect(heading).to_contain_text('173')


@pytest.mark.parametrize(
    'fragment',
    ['{link}/512', '{link}/x', 'no_such/28', 'no_such/28/5', '%E0%A4'],
)
def test_a_wrong_address_has_one_line_and_a_way_back(open_demo, demo, fragment):
  page = open_demo(fragment.format(link=demo.member()['link']))
  alert = page.get_by_role('alert')
  expect(alert).to_be_visible()
  line, *rest = alert.get_by_role('paragraph').all_inner_texts()
  assert '\n' not in line.strip() and len(line) < 200
  if '512' in fragment:
    assert '0 to 511' in line
  alert.get_by_role('link').click()
  expect(page.get_by_role('table', name='Members of the suite')).to_be_visible()
