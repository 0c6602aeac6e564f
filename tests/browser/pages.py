"""Pages in Chromium that must be quiet, and the numbers and texts on them."""

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import re
import shutil
import urllib.parse

import pytest

from jumprelu.features import reading

_BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


def chromium():
  """Returns the path of the system's Chromium; fails without one."""
  for name in _BROWSERS:
    if path := shutil.which(name):
      return path
  pytest.fail(
      f'no {", ".join(_BROWSERS)} on PATH: install it, for example with: apt-get'
      ' install chromium',
      pytrace=False,
  )


class Watch:
  """The messages, errors, dialogs and requests of a page.

  Attributes:
    problems: A line for each that a quiet page does not have.
    requests: Addresses of all requests.
  """

  def __init__(self, page, root, *, expected=()):
    self.problems, self.requests = [], []
    self._root, self._expected = root, expected
    page.on('console', self._message)
    page.on('pageerror', lambda error: self._add(f'error: {error}'))
    page.on('request', self._request)
    page.on('dialog', self._dialog)
    page.on('popup', lambda popup: self._add(f'popup: {popup.url}'))

  def _message(self, message):
    self._add(f'console: {message.text} {message.location.get("url", "")}')

  def _request(self, request):
    self.requests.append(request.url)
    if not request.url.startswith((self._root, 'data:', 'blob:')):
      self._add(f'request: {request.url}')

  def _dialog(self, dialog):
    self._add(f'dialog: {dialog.message}')
    dialog.dismiss()

  def _add(self, problem):
    if not any(text in problem for text in self._expected):
      self.problems.append(problem)


class Visitor:
  """Opens pages, and reports their problems at the end."""

  def __init__(self, browser):
    self._browser = browser
    self._contexts, self.watches = [], []

  def __call__(
      self,
      where,
      *,
      width=1280,
      scheme='light',
      fragment='',
      init=None,
      expected=(),
  ):
    """Returns the opened page.

    Args:
      where: The path of a file, or an address.
      width: Of the window, in pixels.
      scheme: 'light' or 'dark', which the system prefers.
      fragment: The part of the address after "#".
      init: A script that runs before the page's own.
      expected: Parts of messages that this test provokes.
    """
    url = str(where)
    if not url.startswith('http'):
      url = pathlib.Path(where).absolute().as_uri()
    parts = urllib.parse.urlsplit(url)
    single = parts.scheme == 'file' and parts.path.endswith('.html')
    folder = parts.path.rpartition('/')[0] + '/'
    if single and pathlib.Path(where).name != 'index.html':
      folder = parts.path  # One file: nothing but itself.
    root = f'{parts.scheme}://{parts.netloc}{folder}'
    context = self._browser.new_context(
        viewport={'width': width, 'height': 780 if width < 500 else 900},
        color_scheme=scheme,
        has_touch=width < 500,
        accept_downloads=True,
    )
    context.set_default_timeout(8_000)
    self._contexts.append(context)
    if init:
      context.add_init_script(init)
    page = context.new_page()
    self.watches.append(Watch(page, root, expected=expected))
    page.goto(f'{url}#{fragment}' if fragment else url)
    return page

  def finish(self):
    """Closes the pages and returns their problems."""
    for context in self._contexts:
      context.close()
    self._contexts.clear()
    return [p for watch in self.watches for p in watch.problems]


def expect(locator):
  """Returns Playwright's assertions of a locator or page, which wait."""
  # Imported here, because the default run collects these files without it.
  from playwright import sync_api

  return sync_api.expect(locator)


def follow(page, fragment):
  """Changes the fragment of the address, as a link does."""
  page.evaluate('hash => { location.hash = hash; }', fragment)


def shown(text):
  """Returns a displayed number, or None for a dash."""
  text = text.strip().replace('\u2212', '-').replace(',', '')
  if text in ('', '\u2013'):
    return None
  match = re.match(r'([-+]?[\d.]+(?:e[-+]?\d+)?)(%?)', text)
  assert match, text
  return float(match[1]) / (100 if match[2] else 1)


def equal(text, value):
  """Returns whether a displayed number has 3 significant digits of a value."""
  read = shown(text)
  if value is None or read is None:
    return value is None and read is None
  return abs(read - value) <= 0.0051 * abs(value) + 1e-12


_SIGNS = {'\u00b7': ' ', '\u21b5': '\n', '\u21e5': '\t', '\u2205': ''}


def plain(token):
  """Returns a token's text with one spelling of spaces, newlines and tabs.

  The page shows some of them as signs, and long runs of spaces as a sign with
  their number; texts that are compared are both spelled so.
  """
  for sign, meaning in _SIGNS.items():
    token = token.replace(sign, meaning)
  return re.sub(' {4,}', lambda m: f'\u2423{len(m[0])}', token)


def plain_tokens(group):
  """Returns the plain texts of a line of tokens, which a locator names."""
  return list(map(plain, group.locator(':scope > *').all_text_contents()))


@dataclasses.dataclass(frozen=True)
class Demo:
  """A demo's folder, its page and the index of the page."""

  folder: pathlib.Path
  page: pathlib.Path
  index: dict

  @property
  def features(self):
    return self.folder / 'features'

  @property
  def members(self):
    return self.index['members']

  def member(self, *, site='resid_post', number=1):
    """Returns a member of a site: 0 has the largest L0."""
    members = [m for m in self.members if m['site'] == site]
    return sorted(members, key=lambda m: -m['results']['l0'])[number]

  @functools.cached_property
  def pieces(self):
    return reading.read_vocabulary(self.features)['piece'].to_pylist()

  def plain(self, tokens):
    """Returns the plain texts of token ids."""
    return [plain(self.pieces[token]) for token in tokens]

  @functools.cached_property
  def _rows(self):
    return {}

  def rows(self, member):
    """Returns the Parquet rows of a member of the index."""
    path = member['id']
    if path not in self._rows:
      self._rows[path] = reading.read_latents(self.features, path)
    return self._rows[path]

  @property
  def results(self):
    lines = (self.folder / 'results.jsonl').read_text('utf-8').splitlines()
    return {row['path']: row for row in map(json.loads, lines)}


def read_index(page):
  """Returns the index of a page's file."""
  html = page.read_text('utf-8')
  return json.loads(
      re.search(r'id="jumprelu-index">(.*?)</script>', html, re.S)[1]
  )


@contextlib.contextmanager
def _locked(path):
  with path.open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def once(tmp_path_factory, name, make):
  """Returns a folder that one worker makes for all: `make(folder)`."""
  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    root = root.parent
  with _locked(root / f'{name}.lock'):
    folder, draft = root / name, root / f'{name}.draft'
    if not folder.exists():
      make(draft)
      draft.rename(folder)
  return folder
