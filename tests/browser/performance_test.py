"""A page of 16,384 latents paints, searches and fits into memory as promised."""

import json
import pathlib
import re
import statistics

import numpy as np
import pytest

import jumprelu as api
from tests.browser import pages
from tests.browser.pages import expect
from tests.local_processes import jumprelu

pytestmark = pytest.mark.browser

WIDTH = 16_384
LAYER = 2


def _write_sae(folder):
  """Writes an SAE whose latents each fire on about 0.5% of tokens."""
  text = pathlib.Path(json.__file__).read_text('utf-8')[:500]
  (x,) = (
      api.load_lm('gemma2_nano')
      .activations(text, [api.Tap(LAYER, api.Site.RESID_POST)])
      .values()
  )
  x = np.asarray(x)[1:]
  rows = np.random.default_rng(0).normal(size=(WIDTH, x.shape[1]))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  bias = -rows @ x.mean(0)
  threshold = np.quantile(x @ rows.T + bias, 0.995, axis=0)
  folder.mkdir(parents=True)
  np.savez(
      folder / 'params.npz',
      W_enc=rows.T.astype(np.float32),
      b_enc=bias.astype(np.float32),
      W_dec=rows.astype(np.float32),
      b_dec=x.mean(0).astype(np.float32),
      threshold=np.maximum(threshold, 1e-3).astype(np.float32),
  )


@pytest.fixture(scope='session')
def wide(tmp_path_factory):
  def make(draft):
    _write_sae(draft / 'sae')
    jumprelu(
        'explore',
        f'--release={draft / "sae"}',
        '--model=gemma2_nano',
        f'--layer={LAYER}',
        '--site=resid_post',
        '--data=stdlib',
        '--tokens=10000',
        f'--out={draft / "page"}',
    )

  return pages.once(tmp_path_factory, 'wide', make) / 'page' / 'index.html'


# Notes when the first row of a table of latents is in the page.
_FIRST_ROW = """new MutationObserver((_, observer) => {
  if (!document.querySelector('tbody a')) return;
  window.firstRow = performance.now();
  observer.disconnect();
}).observe(document, {childList: true, subtree: true});"""


@pytest.mark.parametrize('view', ['overview', 'member'])
def test_the_first_paint_takes_less_than_two_seconds(visit, wide, view):
  member = pages.read_index(wide)['members'][0]
  paints, rows = [], []
  # The best of three, because other processes share the computer.
  for _ in range(3):
    page = visit(
        wide,
        fragment=member['link'] if view == 'member' else '',
        init=_FIRST_ROW,
    )
    page.wait_for_function('window.firstRow')
    rows.append(page.evaluate('window.firstRow'))
    (paint,) = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')"
        '.map(entry => entry.startTime)'
    )
    paints.append(paint)
  print(f'{view}: paint {min(paints):.0f} ms, table {min(rows):.0f} ms')
  assert min(paints) < 2_000
  assert min(rows) < 2_000


# From the key to a frame with the results of the word, in milliseconds.
_SEARCH = """async word => {
  const input = document.getElementById('search');
  const done = () => [...document.querySelectorAll('caption')].some(
      caption => caption.textContent.endsWith(` ${word}`));
  input.focus();
  input.value = word;
  const start = performance.now();
  input.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}));
  while (!done()) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


def test_a_search_takes_less_than_150_milliseconds(visit, wide):
  page = visit(wide, fragment='search')
  expect(page.get_by_role('group', name='Where')).to_be_visible()
  # The first search unpacks data, which later ones find unpacked.
  page.evaluate(_SEARCH, 'import')
  words = ('self', 'return', 'def', 'if not', 'e', 'line', 'None')
  times = [page.evaluate(_SEARCH, word) for word in words]
  print('search:', *(f'{time:.0f}' for time in times), 'ms')
  assert statistics.median(times) < 150


def _resident(browser):
  """Returns the resident bytes of the largest process of a tab.

  They include the pages that Chromium's processes share, and all buffers, which
  the heap's size in `performance.memory` does not.
  """
  session = browser.new_browser_cdp_session()
  processes = session.send('SystemInfo.getProcessInfo')['processInfo']
  sizes = []
  for process in processes:
    if process['type'] == 'renderer':
      status = pathlib.Path(f'/proc/{process["id"]}/status').read_text()
      sizes.append(1024 * int(re.search(r'VmRSS:\s+(\d+)', status)[1]))
  return max(sizes)


def test_the_tab_needs_less_than_500_megabytes(browser, visit, wide):
  page = visit(wide)
  (member,) = pages.read_index(wide)['members']
  sizes = []
  heading = page.get_by_role('heading', level=1)
  for latent in range(0, WIDTH, WIDTH // 40):  # Each from another shard.
    pages.follow(page, f'{member["link"]}/{latent}')
    expect(heading).to_contain_text(f'{latent}')
    expect(page.get_by_role('tabpanel')).to_be_visible()
    sizes.append(_resident(browser))
  pages.follow(page, member['link'])
  region = page.get_by_role('region', name=re.compile('^Latents of'))
  region.evaluate('e => { e.scrollTop = e.scrollHeight; }')
  expect(
      region.get_by_role('link', name=str(WIDTH - 1), exact=True)
  ).to_be_visible()
  sizes.append(_resident(browser))
  pages.follow(page, 'search?q=self')
  expect(
      page.get_by_role('table', name=re.compile('^Latents that'))
  ).to_be_visible()
  sizes.append(_resident(browser))
  print(f'tab: {max(sizes) / 1e6:.0f} MB resident')
  assert max(sizes) < 500e6
