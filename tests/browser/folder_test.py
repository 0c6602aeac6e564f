"""The layout of a folder: from the disk and served, whole and damaged."""

import functools
import http.server
import re
import threading

import pytest

from jumprelu.explore import page_data, write
from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser


@pytest.fixture(scope='session')
def whole(demo, tmp_path_factory):
  """Returns the demo's page as a folder."""

  def make(draft):
    page = page_data.collect(
        demo.features,
        title='demo',
        results=list(demo.results.values()),
        curves=demo.index['curves'],
    )
    write.write_folder(page, draft)

  return pages.once(tmp_path_factory, 'page_folder', make)


@pytest.fixture
def served(whole):
  class Handler(http.server.SimpleHTTPRequestHandler):

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(
      ('127.0.0.1', 0), functools.partial(Handler, directory=whole)
  )
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f'http://127.0.0.1:{server.server_port}/index.html'
  server.shutdown()
  server.server_close()


@pytest.fixture(params=['disk', 'http'])
def where(request, whole):
  if request.param == 'disk':
    return whole / 'index.html'
  return request.getfixturevalue('served')


def test_all_views_work(visit, where, demo):
  member = demo.member()
  page = visit(where)
  heading = page.get_by_role('heading', level=1)
  expect(page.get_by_role('button', name='Reshuffle')).to_be_visible()
  expect(page.get_by_role('listitem').get_by_role('link').first).to_be_visible()
  page.get_by_role('link', name=member['link'], exact=True).first.click()
  table = page.get_by_role('table', name=re.compile('^Latents of'))
  expect(table.get_by_role('link').first).to_be_visible()
  pages.follow(page, f'{member["link"]}/300')
  expect(heading).to_contain_text('300')
  row = demo.rows(member)[300]
  items = page.get_by_role('tabpanel').get_by_role('group')
  expect(items).to_have_count(len(row['examples']))
  tokens = row['examples'][0]['tokens']
  assert pages.plain_tokens(items.first) == demo.plain(tokens)
  page.keyboard.press('/')
  page.keyboard.type('lineno')
  expect(page.get_by_role('group', name='Where')).to_be_visible()
  expect(page.get_by_role('main').get_by_role('status')).to_contain_text(
      'latents'
  )
  pages.follow(page, 'texts')
  expect(page.get_by_role('group', name=re.compile('^Text'))).to_be_visible()


def test_only_the_shown_latents_are_read(visit, where, demo):
  page = visit(where, fragment=f'{demo.member()["link"]}/300')
  expect(page.get_by_role('tabpanel')).to_be_visible()
  page.wait_for_timeout(300)
  files = {url.split('/data/')[-1] for url in visit.watches[-1].requests}
  shards = {name for name in files if re.search(r'/\d+\.js', name)}
  assert len(shards) == 1
  # The page, the vocabulary, the shard, and tables for the lists of neighbours.
  assert len(files) <= 3 + len(demo.members)


def _damaged(whole, folder, demo, change):
  """Returns a copy of the page with one shard changed, and the shard's name."""
  member = demo.member()
  name = f'data/{member["shards"][1]}.js'
  folder.mkdir()
  for path in whole.rglob('*'):
    if path.is_file():
      target = folder / path.relative_to(whole)
      target.parent.mkdir(parents=True, exist_ok=True)
      if str(path.relative_to(whole)) == name:
        change(path, target)
      else:
        target.symlink_to(path)
  return folder / 'index.html', name


def _missing(path, target):
  del path, target


def _short(path, target):
  target.write_text(path.read_text()[: path.stat().st_size // 2])


def _wrong_bytes(path, target):
  text = path.read_text()
  middle = len(text) // 2
  target.write_text(text[:middle] + 'AAAAAAAA' * 8 + text[middle + 64 :])


def _empty(path, target):
  del path
  target.write_text('')


@pytest.mark.parametrize('change', [_missing, _short, _wrong_bytes, _empty])
def test_a_damaged_shard_gets_one_line_with_its_name(
    visit, whole, demo, tmp_path, change
):
  path, name = _damaged(whole, tmp_path / 'page', demo, change)
  page = visit(
      path,
      fragment=f'{demo.member()["link"]}/200',
      # Only of this file: browsers themselves report it.
      expected=(name, 'Invalid or unexpected token'),
  )
  alert = page.get_by_role('alert')
  expect(alert).to_be_visible()
  line = alert.get_by_role('paragraph').first.inner_text()
  assert '\n' not in line
  assert name.removeprefix('data/').removesuffix('.js') in line
  assert 'again' in line
  # Other latents work, and after the mend this one too.
  pages.follow(page, f'{demo.member()["link"]}/2')
  expect(page.get_by_role('tabpanel')).to_be_visible()
  (tmp_path / 'page' / name).unlink(missing_ok=True)
  (tmp_path / 'page' / name).symlink_to(whole / name)
  pages.follow(page, f'{demo.member()["link"]}/200')
  expect(page.get_by_role('tabpanel')).to_be_visible()
