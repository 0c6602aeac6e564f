"""The served page: texts of the reader's own, with the model of the server."""

import re
import subprocess
import sys

import numpy as np
import pytest

import jumprelu
from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

TEXT = 'def read(path):\n    with open(path) as f:\n        return f.'
# Loaded machines compile slowly, and the first test waits until it is done.
_READY_MS = 600_000


@pytest.fixture(scope='session')
def address(demo):
  """Returns the address of a server of the demo, which is still compiling."""
  process = subprocess.Popen(
      [
          sys.executable,
          '-m',
          'jumprelu.run.explore',
          f'--release={demo.folder / "release"}',
          '--serve',
          '--port=0',
      ],
      stdout=subprocess.PIPE,
      text=True,
  )
  try:
    for line in process.stdout:
      if match := re.search(r'http://\S+/', line):
        break
    yield match[0]
  finally:
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture(scope='session')
def suite(demo):
  return jumprelu.load(demo.folder / 'release')


@pytest.fixture(scope='session')
def model():
  return jumprelu.load_lm('gemma2_nano')


@pytest.fixture
def open_tab(visit, address):
  """Opens a tab of the live view, and waits until the model is ready."""

  def open_it(name, **options):
    page = visit(address, fragment=f'live/{name}', **options)
    page.get_by_role('textbox', name='Text', exact=True).fill(TEXT)
    button = page.get_by_role('button', name='Run')
    expect(button).to_be_enabled(timeout=_READY_MS)
    return page

  return open_it


def run(page):
  """Runs the tab's request, and returns the place of its answer."""
  page.get_by_role('button', name='Run').click()
  expect(page.locator('.live-line')).to_have_text('')
  answer = page.locator('.live-output')
  expect(answer).not_to_be_empty()
  return answer


def choose(page, member):
  page.get_by_label('Member').select_option(member['link'])


def test_a_page_that_is_not_served_has_no_live_view(open_demo):
  page = open_demo()
  assert page.get_by_role('link', name='Try a text').count() == 0


def test_the_latents_of_a_token_are_those_of_the_api(
    open_tab, demo, suite, model
):
  answer = run(open_tab('tokens'))
  acts = {m['id']: model.run(TEXT, suite[m['id']]) for m in demo.members}
  for at in (len(next(iter(acts.values())).tokens) - 1, 3):
    answer.get_by_role('button').or_(answer.locator('.passage > *')).nth(
        at
    ).click()
    for member in demo.members:
      row = answer.get_by_role('row').filter(
          has=answer.page.get_by_role('link', name=member['link'], exact=True)
      )
      top = acts[member['id']].top(8)[at]
      chips = row.locator('.latent-chip')
      assert chips.locator('b').all_inner_texts() == [
          str(active.latent) for active in top
      ]
      shown = chips.all_inner_texts()
      for text, active in zip(shown, top, strict=True):
        assert pages.equal(text.split()[1], active.value)
      l0 = row.locator('td').first.inner_text()
      assert int(l0) == acts[member['id']].l0[at]


def test_ranked_latents_are_the_largest_on_the_text(
    open_tab, demo, suite, model
):
  member = demo.member(site='mlp_out')
  page = open_tab('rank')
  choose(page, member)
  answer = run(page)
  latents = model.run(TEXT, suite[member['id']]).latents[1:]
  order = np.argsort(-latents.max(0))
  table = answer.get_by_role('table', name=re.compile('that fire on the text'))
  rows = table.locator('tbody tr').filter(has=answer.page.get_by_role('link'))
  shown = [row.locator('td, th').first.inner_text() for row in rows.all()]
  assert len(shown) > 5
  assert shown == [str(latent) for latent in order[: len(shown)]]


def test_next_tokens_are_shown_with_and_without_the_sae(
    open_tab, demo, suite, model
):
  member = demo.member()
  page = open_tab('logits')
  choose(page, member)
  answer = run(page)
  spliced = model.with_sae(suite[member['id']])
  for name, lang in (('without', model), ('with', spliced)):
    table = answer.get_by_role('table', name=f'Next tokens {name} the SAE')
    logits = lang.logits(TEXT)[-1]
    best = model.pieces([int(logits.argmax())])[0]
    row = table.locator('tbody tr').first
    assert pages.plain(row.locator('td').first.inner_text()) == pages.plain(
        best
    )
    shown = row.locator('td').last.inner_text().split()[0]
    assert pages.equal(shown, float(logits.max()))


def test_attributions_are_those_of_the_api(open_tab, demo, suite, model):
  member = demo.member(site='transcoder', number=0)
  page = open_tab('attribution')
  choose(page, member)
  page.get_by_label('Target').fill('read')
  answer = run(page)
  made = model.attribute(TEXT, target='read', sae=suite[member['id']])
  rows = answer.get_by_role('table', name='Attributions to latents')
  rows = rows.locator('tbody tr')
  for row, (_, latent, effect) in zip(rows.all(), made.top(5), strict=False):
    assert row.locator('td').first.inner_text() == str(latent)
    assert pages.equal(row.locator('td').last.inner_text(), effect)
  assert rows.count() == 50


def test_the_text_is_continued_as_by_the_api(open_tab, model):
  answer = run(open_tab('generate'))
  expected = model.generate(TEXT, tokens=20)
  pieces = model.pieces(expected.tokens)
  actual = pages.plain_tokens(answer.locator('.generated'))
  assert ''.join(actual) == pages.plain(''.join(pieces))


def test_a_long_text_is_refused_in_one_line(open_tab):
  # The browser logs every answer that is an error.
  page = open_tab('tokens', expected=('Failed to load resource',))
  page.get_by_role('textbox', name='Text', exact=True).fill('\x01' * 300)
  page.get_by_role('button', name='Run').click()
  expect(page.get_by_role('status')).to_contain_text('301 tokens with BOS')


def test_a_hostile_text_stays_text(open_tab):
  page = open_tab('tokens')
  hostile = '</script><img src=x onerror=alert(1)>\u202e&lt;\x00'
  page.get_by_role('textbox', name='Text', exact=True).fill(hostile)
  answer = run(page)
  assert answer.locator('img, script').count() == 0
  text = ''.join(pages.plain_tokens(answer.locator('.passage').first))
  assert '</script><img' in text
