"""The served page: its live tabs show the values of the public API."""

import re

import numpy as np
import pytest

import jumprelu as api
from tests import local_processes
from tests.browser import looks_test, pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

TEXT = 'with open(path) as f:\n    return f.'
# In milliseconds: compiling takes a minute on a busy computer.
_PATIENCE = 300_000


@pytest.fixture(scope='module')
def address(demo):
  """Returns the address of a server of the demo, which may be compiling."""
  argv = [
      '-m',
      'jumprelu.run.main',
      'explore',
      f'--release={demo.folder / "release"}',
      f'--features={demo.features}',
      f'--run={demo.folder / "run"}',
      '--serve',
      '--port=0',
  ]
  with local_processes.run(argv) as child:
    child.wait_for('open it in a browser')
    yield re.search(r'http://\S+/', child.output)[0]


@pytest.fixture(scope='module')
def lm():
  return api.load_lm('gemma2_nano')


@pytest.fixture(scope='module')
def saes(demo):
  suite = api.load(demo.folder / 'release')
  return {member['link']: suite[member['id']] for member in demo.members}


@pytest.fixture
def live(visit, address):
  """Opens a live tab, types a text, and runs it with some fields."""

  def run(tab, text=TEXT, *, fill=(), expected=(), **options):
    page = visit(address, fragment=f'live/{tab}', expected=expected)
    button = page.get_by_role('button', name='Run')
    expect(button).to_be_enabled(timeout=_PATIENCE)
    page.get_by_role('textbox', name='Text', exact=True).fill(text)
    for name, choice in options.items():
      page.get_by_role('combobox', name=name, exact=True).select_option(choice)
    for name, value in dict(fill).items():
      page.get_by_label(name, exact=True).fill(value)
    button.click()
    expect(button).to_be_enabled()
    return page

  return run


def _cells(table):
  rows = table.locator('tbody').get_by_role('row').all()
  return [row.locator('td, th').all_text_contents() for row in rows]


def _plain(lm, ids):
  return [pages.plain(piece) for piece in lm.pieces(ids)]


def test_the_page_waits_for_the_model(visit, address):
  page = visit(address, fragment='live')
  button = page.get_by_role('button', name='Run')
  # The first test of the file: the server has only started to compile.
  status = page.get_by_role('main').get_by_role('status')
  expect(status).to_contain_text('not ready')
  expect(button).to_be_disabled()
  expect(button).to_be_enabled(timeout=_PATIENCE)


def test_the_page_is_the_same_when_it_is_served(visit, address, demo):
  member = demo.member()
  page = visit(address, fragment=f'{member["link"]}/172')
  row = demo.rows(member)[172]
  items = page.get_by_role('tabpanel').get_by_role('group')
  expect(items).to_have_count(len(row['examples']))
  assert pages.plain_tokens(items.first) == demo.plain(
      row['examples'][0]['tokens']
  )
  page.get_by_role('link', name='Try a text').click()
  expect(page.get_by_role('heading', level=1)).to_have_text('Try a text')


def test_a_page_that_is_not_served_has_no_live_tabs(open_demo):
  page = open_demo('live')
  expect(page.get_by_role('alert')).to_contain_text('--serve')
  assert page.get_by_role('link', name='Try a text').count() == 0


def test_an_empty_text_is_bos_alone(live):
  page = live('tokens', '')
  line = page.get_by_role('group', name=re.compile('^Text'))
  assert len(pages.plain_tokens(line)) == 1


def test_latents_of_each_token_are_those_of_encode(live, lm, saes):
  page = live('tokens')
  line = page.get_by_role('group', name=re.compile('^Text'))
  tokens = lm.tokenize(TEXT)
  assert pages.plain_tokens(line) == _plain(lm, tokens)
  acts = {link: lm.run(TEXT, sae) for link, sae in saes.items()}
  for at in (2, len(tokens) - 1):
    line.locator(':scope > *').nth(at).click()
    table = page.get_by_role('table', name=re.compile(f' at {at}'))
    rows = table.locator('tbody').get_by_role('row')
    expect(rows).to_have_count(len(saes))
    for row in rows.all():
      link = row.get_by_role('rowheader').inner_text()
      latents = acts[link].latents[at]
      cells = row.get_by_role('cell').all_text_contents()
      assert int(cells[0]) == np.count_nonzero(latents)
      error = np.linalg.norm(acts[link].error[at])
      error /= np.linalg.norm(acts[link].targets[at])
      assert pages.equal(cells[1], error)
      strongest = np.argsort(-latents)[: min(8, np.count_nonzero(latents))]
      chips = row.get_by_role('cell').last.get_by_role('link')
      assert chips.count() == len(strongest)
      for text, latent in zip(
          chips.all_text_contents(), strongest, strict=True
      ):
        number, value = text.split()[:2]
        assert int(number) == latent
        assert pages.equal(value, latents[latent])


def test_the_next_tokens_are_those_of_the_model(live, lm):
  page = live('tokens')
  table = page.get_by_role('table', name='The most probable next tokens')
  _check_next(_cells(table), lm.logits(TEXT)[-1], lm)


def _check_next(rows, logits, lm):
  logits = np.asarray(logits, np.float64)
  shares = np.exp(logits - logits.max())
  shares /= shares.sum()
  order = np.argsort(-logits)[: len(rows)]
  assert len(rows) == 10
  assert [pages.plain(row[0]) for row in rows] == _plain(lm, order)
  for row, token in zip(rows, order, strict=True):
    assert pages.equal(row[-2], shares[token])
    assert pages.equal(row[-1], logits[token])


def test_a_ranking_is_that_of_the_latents(live, lm, saes, demo):
  link = demo.member()['link']
  page = live('rank', Member=link)
  table = page.get_by_role('table', name=re.compile('that fire on the text'))
  expect(table.get_by_role('link').first).to_be_visible()
  rows = [row for row in _cells(table) if len(row) > 2]
  latents = lm.run(TEXT, saes[link]).latents[1:]
  largest = latents.max(0)
  order = np.argsort(-largest, kind='stable')
  for row, latent in zip(rows[:10], order, strict=False):
    fires = latents[:, latent] > 0
    assert int(row[0]) == latent
    assert pages.equal(row[2], largest[latent])
    assert pages.equal(row[3], latents[fires, latent].mean())
    assert int(row[4]) == fires.sum()


def test_logits_with_and_without_the_sae(live, lm, saes, demo):
  link = demo.member()['link']
  page = live('logits', Member=link)
  spliced = lm.with_sae(saes[link])
  for name, model in (('without', lm), ('with', spliced)):
    table = page.get_by_role('table', name=f'Next tokens {name} the SAE')
    _check_next(_cells(table), model.logits(TEXT)[-1], lm)
    term = page.get_by_role('term').filter(has_text=f'Loss {name} the SAE')
    value = term.locator('xpath=following-sibling::dd').inner_text()
    assert pages.equal(value, model.loss(TEXT).mean())


@pytest.mark.parametrize('site', ['resid_post', 'transcoder'])
def test_attributions_are_those_of_the_api(live, lm, saes, demo, site):
  link = demo.member(site=site)['link']
  page = live('attribution', fill={'Target': 'read'}, Member=link)
  made = lm.attribute(TEXT, target='read', sae=saes[link])
  table = page.get_by_role('table', name='Attributions to latents')
  rows = _cells(table)
  effects = np.asarray(made.effects)
  order = np.argsort(-np.abs(effects), axis=None)[: len(rows)]
  assert len(rows) == min(50, np.count_nonzero(effects))
  for row, flat in zip(rows, order, strict=True):
    position, latent = np.unravel_index(flat, effects.shape)
    assert int(row[0]) == latent
    assert int(row[2].split()[-1]) == position
    assert pages.equal(row[-1], effects[position, latent])
  facts = page.get_by_role('main').locator('dl').first
  names = facts.get_by_role('term').all_inner_texts()
  values = facts.get_by_role('definition').all_inner_texts()
  shown = dict(zip(names, values, strict=True))
  assert shown['Target'] == 'read'
  assert pages.equal(shown['Total'], made.total)
  assert pages.equal(shown['Error'], np.sum(made.error))


@pytest.mark.parametrize('member', ['none', 'resid_post'])
def test_a_continuation_is_that_of_the_api(live, lm, saes, demo, member):
  link = demo.member()['link'] if member == 'resid_post' else 'none'
  page = live('generate', fill={'Tokens': '12'}, Member=link)
  model = lm if link == 'none' else lm.with_sae(saes[link])
  line = page.get_by_role('group', name='New tokens')
  expected = model.generate(TEXT, tokens=12).tokens
  assert pages.plain_tokens(line) == _plain(lm, expected)


def test_steering_shows_both_continuations(live, lm, saes, demo):
  member = demo.member()
  row = max(demo.rows(member), key=lambda row: row['count'])
  latent, link = row['latent'], member['link']
  page = live(
      'steer', fill={'Tokens': '8', 'Latent 1': str(latent)}, Member=link
  )
  for strength in (1, 3):
    slider = page.get_by_role('slider', name='Strength 1')
    slider.fill(str(strength))
    page.get_by_role('button', name='Run').click()
    edit = api.Edit(
        saes[link], latent, value=float(strength), unit=row['largest']
    )
    for name, edits in (('without', []), ('with', [edit])):
      expected = lm.generate(TEXT, tokens=8, edits=edits).tokens
      line = page.get_by_role('group', name=f'New tokens {name} edits')
      wanted = _plain(lm, expected)
      expect(page.get_by_role('button', name='Run')).to_be_enabled()
      assert pages.plain_tokens(line) == wanted
  page.get_by_role('button', name='Add a latent').click()
  expect(page.get_by_role('slider')).to_have_count(2)
  page.get_by_role('button', name='Remove').first.click()
  expect(page.get_by_role('slider')).to_have_count(1)


@pytest.mark.parametrize(
    ('tab', 'text', 'line'),
    [
        ('tokens', '\x01' * 300, '301 tokens with BOS'),
        ('rank', 'word ' * 3_000, 'token'),
        ('generate', 'word ' * 3_000, 'token'),
    ],
)
def test_wrong_input_gets_the_servers_line(live, tab, text, line):
  page = live(tab, text, expected=('status of 4',))
  status = page.get_by_role('main').get_by_role('status').first
  expect(status).to_contain_text(re.compile(line))
  message = status.inner_text()
  assert '\n' not in message and 10 < len(message) < 200
  page.get_by_role('textbox', name='Text', exact=True).fill(TEXT)
  page.get_by_role('button', name='Run').click()
  expect(
      page.get_by_role('group', name=re.compile('ext|tokens')).first
  ).to_be_visible()
  expect(page.get_by_text(message)).to_have_count(0)


def test_a_wrong_target_gets_the_servers_line(live):
  page = live(
      'attribution', fill={'Target': 'no such token'}, expected=('status of 4',)
  )
  status = page.get_by_role('main').get_by_role('status').first
  expect(status).to_contain_text(re.compile('token'))


def test_a_text_with_markup_stays_text(live):
  text = '</script><img src=x onerror=alert(1)>\u202e\x07'
  page = live('tokens', text)
  line = page.get_by_role('group', name=re.compile('^Text'))
  assert 'onerror' in ''.join(pages.plain_tokens(line))
  assert page.evaluate("document.querySelectorAll('img').length") == 0
  assert '\u202e' not in line.text_content()


def test_a_server_that_is_gone_gets_one_line(live):
  page = live('tokens', expected=('ERR_INTERNET_DISCONNECTED',))
  page.context.set_offline(True)
  page.get_by_role('button', name='Run').click()
  status = page.get_by_role('main').get_by_role('status').first
  expect(status).to_contain_text('still running?')


def test_a_text_is_kept_from_tab_to_tab(live):
  page = live('tokens', 'import re\n')
  page.get_by_role('link', name='Generate').click()
  field = page.get_by_role('textbox', name='Text', exact=True)
  expect(field).to_have_value('import re\n')


@pytest.mark.parametrize('width', looks_test.WIDTHS)
@pytest.mark.parametrize(
    'tab', ['tokens', 'rank', 'logits', 'attribution', 'generate', 'steer']
)
def test_live_tabs_fit_are_named_and_readable(live, tab, width):
  page = live(tab)
  page.set_viewport_size({'width': width, 'height': 800})
  page.wait_for_timeout(150)
  assert page.evaluate(looks_test.OVERFLOW) == []
  assert page.evaluate(looks_test.NAMELESS) == []
  expect(page.get_by_role('heading', level=1)).to_have_count(1)
  for scheme in ('light', 'dark'):
    # Colours change at once.
    page.emulate_media(color_scheme=scheme, reduced_motion='reduce')
    assert page.evaluate(looks_test.CONTRAST, 4.5)['low'] == []
  if width == 360:
    assert page.evaluate(looks_test.SMALL, 24) == []
