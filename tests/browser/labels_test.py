"""Labels and notes: kept, exported, cleared, imported; also without storage."""

import json
import re

import pytest

from tests.browser import pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

# As a browser does that blocks all storage.
_REFUSED = """Object.defineProperty(window, 'localStorage', {
  get() { throw new DOMException('The operation is insecure.', 'SecurityError'); }
});"""
_FULL = """Storage.prototype.setItem = () => {
  throw new DOMException('full', 'QuotaExceededError');
};"""


@pytest.fixture
def place(demo):
  return f'{demo.member()["link"]}/172'


def _write(page, label, note=''):
  page.get_by_label('Label', exact=True).fill(label)
  page.get_by_label('Note', exact=True).fill(note)
  page.get_by_label('Note', exact=True).blur()


def _expect(page, label, note=''):
  expect(page.get_by_label('Label', exact=True)).to_have_value(label)
  expect(page.get_by_label('Note', exact=True)).to_have_value(note)


def _export(page):
  with page.expect_download() as download:
    page.get_by_role('button', name='Export labels').click()
  text = download.value.path().read_text('utf-8')
  return download.value.suggested_filename, json.loads(text)


def _import(page, text, name='labels.json'):
  with page.expect_file_chooser() as chooser:
    page.get_by_role('button', name='Import labels').click()
  data = text if isinstance(text, str) else json.dumps(text)
  chooser.value.set_files(
      {'name': name, 'mimeType': 'application/json', 'buffer': data.encode()}
  )
  status = page.get_by_role('status').filter(has_text=name)
  expect(status).to_be_visible()
  return status.inner_text()


def test_a_label_and_a_note_are_kept_after_a_reload(open_demo, place):
  page = open_demo(place)
  _write(page, 'positions', 'fires on `pos`\nand on lines')
  page.reload()
  _expect(page, 'positions', 'fires on `pos`\nand on lines')
  page.get_by_role('link', name='Next').click()
  _expect(page, '')


def test_a_label_that_is_left_at_once_is_kept(open_demo, place):
  page = open_demo(place)
  page.get_by_label('Label', exact=True).press_sequentially('at once')
  pages.follow(page, '')
  expect(page.get_by_role('heading', name='Frontier')).to_be_visible()
  page.go_back()
  _expect(page, 'at once')


def test_a_label_is_in_the_table_and_the_filter(open_demo, place, demo):
  page = open_demo(place)
  _write(page, 'positions', 'a note')
  pages.follow(page, demo.member()['link'])
  page.get_by_role('button', name='Labelled').click()
  rows = (
      page.get_by_role('table', name=re.compile('^Latents of'))
      .locator('tbody')
      .get_by_role('row')
  )
  expect(rows.get_by_role('link')).to_have_count(1)
  expect(rows.filter(has_text='positions').get_by_role('link')).to_have_text(
      '172'
  )
  page.get_by_role('button', name='All', exact=True).click()
  page.get_by_role('searchbox', name='Filter by token or label').fill('POSIT')
  expect(rows.filter(has_text='positions')).to_have_count(1)


def test_an_export_is_cleared_and_imported_again(open_demo, place, demo):
  page = open_demo(place)
  _write(page, 'positions', 'a note')
  name, exported = _export(page)
  assert name.endswith('.json')
  (entry,) = exported['labels']
  assert entry['member'] == demo.member()['id']
  assert entry['latent'] == 172
  assert (entry['label'], entry['note']) == ('positions', 'a note')
  assert exported['release'] == demo.index['storage_key']
  _write(page, '', '')
  page.reload()
  _expect(page, '')
  page.evaluate('localStorage.clear()')
  page.reload()
  _expect(page, '')
  _import(page, exported)
  _expect(page, 'positions', 'a note')


def test_an_import_merges_and_keeps_the_newer_of_two(open_demo, place, demo):
  page = open_demo(place)
  _write(page, 'mine')
  member = demo.member()['id']

  def entry(latent, label, time):
    return {
        'member': member,
        'latent': latent,
        'label': label,
        'note': '',
        'time': time,
    }

  _, exported = _export(page)
  exported['labels'] = [
      entry(172, 'older', '2020-01-01T00:00:00Z'),
      entry(173, 'of a friend', '2020-01-01T00:00:00Z'),
  ]
  _import(page, exported)
  _expect(page, 'mine')
  page.get_by_role('link', name='Next').click()
  _expect(page, 'of a friend')
  exported['labels'] = [entry(173, 'newer', '2099-01-01T00:00:00Z')]
  _import(page, exported, 'second.json')
  _expect(page, 'newer')


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{"labels": [',
        '[]',
        'null',
        '"text"',
        '{}',
        '{"kind": "jumprelu-labels"}',
        '{"kind": "jumprelu-labels", "labels": {}}',
        '{"kind": "jumprelu-labels", "labels": [null]}',
        '{"kind": "jumprelu-labels", "labels": [{"member": "a", "latent": -1}]}',
        '{"kind": "jumprelu-labels", "labels": [{"member": "a", "latent": 1,'
        ' "label": 3, "note": "", "time": "2020-01-01T00:00:00Z"}]}',
    ],
)
def test_a_malformed_file_gets_one_line_and_changes_nothing(
    open_demo, place, text
):
  page = open_demo(place)
  _write(page, 'mine')
  line = _import(page, text, 'wrong.json')
  assert '\n' not in line and 10 < len(line) < 200
  assert 'undefined' not in line and 'TypeError' not in line
  _expect(page, 'mine')


@pytest.mark.parametrize('init', [_REFUSED, _FULL], ids=['refused', 'full'])
def test_without_storage_the_page_works_and_says_so(open_demo, place, init):
  page = open_demo(place, init=init)
  _write(page, 'for now')
  expect(page.get_by_text(re.compile('stores nothing')).first).to_be_visible()
  page.get_by_role('link', name='Next').click()
  _expect(page, '')
  page.get_by_role('link', name='Previous').click()
  _expect(page, 'for now')
  _, exported = _export(page)
  assert exported['labels'][0]['label'] == 'for now'
  page.get_by_role('button', name=re.compile('theme')).click()
