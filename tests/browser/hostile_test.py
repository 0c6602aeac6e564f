"""Hostile tokens, titles, labels and files stay text, and the layout holds."""

import json
import shutil

import pyarrow as pa
from pyarrow import parquet
import pytest

from jumprelu.explore import page_data, write
from jumprelu.features import reading
from tests.browser import looks_test, pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

_BIDI = '\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200e\u200f\u061c'
PIECES = (
    '</script><script>alert(1)</script>',
    '<img src=x onerror=alert(2)>',
    '"><svg onload=alert(3)>',
    "'><iframe srcdoc='<script>parent.alert(4)</script>'>",
    '</style><style>*{display:none}</style>',
    '<!--',
    ']]>',
    '\u202eright to left\u202c',
    f'all marks {_BIDI}',
    'NUL\x00 and \x07\x1b[31m',
    '\u0301\u0301\u0301' * 40,
    'e' + '\u0334\u0489' * 100,
    'x' * 10_000,
    '\u05d0\u05d1' * 2_000,
    'W\ufdfd' * 20,
    '',
    '\n\n\t\r\n\u2028\u2029',
    ' ' * 300,
    'javascript:alert(5)',
    '{{constructor.constructor("alert(6)")()}}',
    '${alert(7)}',
    '__proto__',
    'constructor',
    '&lt;b&gt;&#0;&amp;',
    '\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467',
    '\ufeff\u200b\u00ad',
)
_TAG = '<img src=x onerror=alert(8)><b>bold</b></script>'


@pytest.fixture(scope='session')
def hostile(demo, tmp_path_factory):
  """Returns the page of two of the demo's members with hostile texts."""

  def make(draft):
    features = draft / 'features'
    shutil.copytree(demo.features, features)
    members = [demo.member(), demo.member(site='mlp_out')]
    manifest = reading.read_manifest(features)
    manifest['members'] = [
        m | {'variant': _TAG}
        for m in manifest['members']
        if m['path'] in {member['id'] for member in members}
    ]
    manifest['text']['source'] = _TAG
    manifest['model']['name'] = _TAG
    manifest['settings']['window'] = _TAG
    (features / 'manifest.json').write_text(json.dumps(manifest))
    path = features / manifest['vocabulary']
    table = parquet.read_table(path)
    pieces = [PIECES[i % len(PIECES)] for i in range(table.num_rows)]
    column = table.column_names.index('piece')
    table = table.set_column(column, 'piece', pa.array(pieces, pa.string()))
    parquet.write_table(table, path)
    page = page_data.collect(
        features,
        title=f'{_TAG}\u202e{"long" * 100}',
        results=list(demo.results.values()),
        curves=demo.index['curves'],
    )
    write.write_file(page, draft / 'page.html')
    shutil.rmtree(features)

  return pages.once(tmp_path_factory, 'hostile', make) / 'page.html'


# Elements and attributes that this page never has by itself.
_MADE = """() => [...document.querySelectorAll('*')].filter(e =>
    /^(IMG|IFRAME|OBJECT|EMBED|BASE|FORM|VIDEO|AUDIO|B-)/.test(e.tagName)
    || e.tagName === 'SCRIPT' && (e.src
        || !['', 'text/plain', 'application/json'].includes(e.type))
    || e.tagName === 'B' && e.textContent === 'bold'
    || [...e.attributes].some(a => a.name.startsWith('on')
        || /^\\s*javascript:/i.test(a.value) && ['href', 'src'].includes(a.name)))
  .map(e => e.outerHTML.slice(0, 150))"""
_RAW = """marks => {
  const parts = document.querySelectorAll('header, main');
  const text = [...parts].map(e => e.textContent).join('') + document.title;
  return [...marks].filter(mark => text.includes(mark))
      .map(mark => mark.codePointAt(0).toString(16));
}"""


def _check(page):
  assert page.evaluate(_MADE) == []
  assert page.evaluate(_RAW, _BIDI + '\x00\x07\x1b') == []
  scripts = 'document.querySelectorAll("script:not([type])").length'
  assert page.evaluate(scripts) == 1
  assert page.evaluate(looks_test.OVERFLOW) == []


@pytest.mark.parametrize('width', [360, 1280])
@pytest.mark.parametrize(
    'view', ['overview', 'member', 'latent', 'search', 'texts']
)
def test_hostile_text_stays_text(visit, hostile, demo, view, width):
  fragment = looks_test.fragment(demo, view).replace('lineno', 'alert')
  page = visit(hostile, fragment=fragment, width=width)
  looks_test.ready(page, view)
  _check(page)
  text = page.get_by_role('main').text_content()
  if view != 'overview':
    assert any(
        piece in text for piece in ('onerror=alert(2)', 'onload=alert(3)')
    )


def test_each_band_and_tooltip_stays_text(visit, hostile, demo):
  page = visit(hostile, fragment=looks_test.fragment(demo, 'latent'))
  for tab in page.get_by_role('tab').all():
    tab.click()
    groups = page.get_by_role('tabpanel').get_by_role('group')
    group = groups.first
    for i in range(8):
      group.locator(':scope > *').nth(i).hover()
      tooltip = page.get_by_role('tooltip')
      if tooltip.is_visible():
        box = tooltip.bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= 1281
        assert box['height'] < 300
    _check(page)


def test_a_token_shows_signs_for_characters_without_a_shape(
    visit, hostile, demo
):
  page = visit(hostile, fragment=looks_test.fragment(demo, 'texts'))
  looks_test.ready(page, 'texts')
  text = page.get_by_role('main').text_content()
  assert 'RLO' in text or '202E' in text
  assert '\u2400' in text or 'U+0000' in text  # The sign of NUL.
  assert '\u2205' in text  # The empty token.


@pytest.mark.parametrize(
    'fragment',
    [
        '</script><img src=x onerror=alert(1)>',
        'javascript:alert(1)',
        'search?q=<img src=x onerror=alert(1)>',
        'search?in=__proto__&q=alert&where=constructor',
        'texts?p=-1&a=__proto__&b=constructor&ha=1e9&hb=%00',
        '__proto__/1',
        'constructor',
        '%00%ff%',
        'live',
        'x' * 5_000,
    ],
)
def test_hostile_addresses_do_no_harm(visit, hostile, fragment):
  page = visit(hostile, fragment=fragment)
  expect(page.get_by_role('main')).not_to_be_empty()
  page.wait_for_timeout(300)
  _check(page)


def test_hostile_labels_and_imports_stay_text(visit, hostile, demo):
  fragment = looks_test.fragment(demo, 'latent')
  page = visit(hostile, fragment=fragment)
  member = demo.member()
  page.get_by_label('Label', exact=True).fill(_TAG)
  page.get_by_label('Note', exact=True).fill('</textarea>' + _TAG)
  page.get_by_label('Note', exact=True).blur()
  page.reload()
  expect(page.get_by_label('Label', exact=True)).to_have_value(_TAG)
  names = ['__proto__', 'constructor', 'toString', member['id']]
  entries = [
      {
          'member': name,
          'latent': 7,
          'label': f'\u202e{_TAG}',
          'note': '\u202e' + 'n' * 19_000 if name == member['id'] else '',
          'time': '2030-01-01T00:00:00Z',
          '__proto__': {'polluted': 1},
      }
      for name in names
  ]
  file = {
      'kind': 'jumprelu-labels',
      'format': 1,
      'release': '__proto__',
      'labels': entries,
      '__proto__': {'polluted': 1},
  }
  with page.expect_file_chooser() as chooser:
    page.get_by_role('button', name='Import labels').click()
  name = '<img src=x onerror=alert(9)>.json'
  chooser.value.set_files(
      {
          'name': name,
          'mimeType': 'application/json',
          'buffer': json.dumps(file).encode(),
      }
  )
  expect(page.get_by_role('status').filter(has_text=name)).to_be_visible()
  assert page.evaluate('({}).polluted') is None
  for view in (f'{member["link"]}/7', member['link'], 'search?q=onerror'):
    pages.follow(page, view)
    page.wait_for_timeout(300)
    _check(page)
  rows = page.get_by_role('row').filter(has_text='<b>bold</b>')
  assert rows.count() >= 2


def test_the_policy_refuses_requests_and_scripts_of_others(visit, demo):
  page = visit(
      demo.page,
      # Each refusal is logged by the browser.
      expected=(
          'Content Security Policy',
          'Refused to',
          'https://example.com/',
      ),
  )
  refused = page.evaluate("""async () => {
    const tries = [
      () => fetch('https://example.com/'),
      () => new Promise((resolve, reject) => {
        const image = new Image();
        image.onload = resolve;
        image.onerror = reject;
        image.src = 'https://example.com/a.png';
      }),
    ];
    const results = await Promise.allSettled(tries.map(async run => run()));
    const script = document.createElement('script');
    script.textContent = 'window.injected = true';
    document.body.append(script);
    return [...results.map(r => r.status), String(window.injected)];
  }""")
  assert refused == ['rejected', 'rejected', 'undefined']
