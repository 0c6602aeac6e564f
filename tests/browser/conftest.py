"""A browser, its visits, and the demo's page."""

import os
import pathlib

import pytest

from tests.browser import pages
from tests.local_processes import jumprelu


@pytest.fixture(scope='session')
def browser():
  from playwright import sync_api

  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=pages.chromium(),
        # Containers run as root and have little shared memory.
        args=['--no-sandbox', '--disable-dev-shm-usage'],
    )
    yield browser
    browser.close()


@pytest.fixture
def visit(browser):
  """Opens pages that must be quiet until the test ends (`pages.Visitor`)."""
  visitor = pages.Visitor(browser)
  yield visitor
  problems = visitor.finish()
  assert not problems, '\n'.join(problems)


@pytest.fixture(scope='session')
def demo(tmp_path_factory):
  if 'JUMPRELU_DEMO' in os.environ:  # An existing run of the demo.
    folder = pathlib.Path(os.environ['JUMPRELU_DEMO'])
  else:
    folder = pages.once(
        tmp_path_factory,
        'demo',
        lambda out: jumprelu('demo', f'--out={out}'),
    )
  page = folder / 'explore.html'
  return pages.Demo(folder, page, pages.read_index(page))


@pytest.fixture
def open_demo(visit, demo):
  """Opens the demo's page at a fragment."""
  return lambda fragment='', **options: visit(
      demo.page, fragment=fragment, **options
  )
