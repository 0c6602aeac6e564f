"""The page is one document whose policy admits its own script only."""

import base64
import hashlib
from html import parser
import json

from jumprelu.explore import html_page


class _Scripts(parser.HTMLParser):
  """Collects the elements script and style with their text."""

  def __init__(self):
    super().__init__()
    self.elements, self.meta, self._open = [], {}, None

  def handle_starttag(self, tag, attrs):
    if tag in ('script', 'style'):
      self._open = [tag, dict(attrs), '']
      self.elements.append(self._open)
    if tag == 'meta':
      self.meta |= {dict(attrs).get('http-equiv'): dict(attrs).get('content')}

  def handle_data(self, data):
    if self._open:
      self._open[2] += data

  def handle_endtag(self, tag):
    if self._open and tag == self._open[0]:
      self._open = None


def _parse(text):
  scripts = _Scripts()
  scripts.feed(text)
  return scripts


def test_the_policy_has_the_hashes_of_script_and_style(page_file):
  parsed = _parse(page_file.read_text('utf-8'))
  policy = parsed.meta['Content-Security-Policy']
  run = [e for e in parsed.elements if not e[1].get('type')]
  assert [e[0] for e in run] == ['style', 'script']
  for kind, (_, _, text) in zip(('style', 'script'), run, strict=True):
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"{kind}-src 'sha256-{digest}'" in policy
  assert "default-src 'none'" in policy and "connect-src 'none'" in policy
  assert 'unsafe' not in policy


def test_text_of_the_corpus_cannot_end_the_data(page_data):
  hostile = '</script><script>alert(1)</script><!-- <img onerror=x>'
  index = page_data.index | {'title': hostile, 'text': {'source': hostile}}
  text = html_page.head(index, policy_text=None)
  parsed = _parse(text)
  data = [e for e in parsed.elements if e[1].get('id') == 'jumprelu-index']
  assert len(parsed.elements) == 2 and len(data) == 1
  assert json.loads(data[0][2])['text']['source'] == hostile
  assert '<img' not in text


def test_nothing_is_loaded_from_elsewhere(page_file):
  text = page_file.read_text('utf-8')
  start = text.index('<div id="app">')
  for source in ('src=', '<link', '@import', 'url('):
    assert source not in text[:start].replace(
        '<link rel="icon" href="data:,">', ''
    )
