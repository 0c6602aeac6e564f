"""Writes pictures of all views of a demo's page, to be looked at.

python -m tests.browser.screenshots DEMO OUT [view ...]
"""

import pathlib
import sys

from tests.browser import looks_test, pages

_HEIGHTS = {360: 780, 1280: 900, 1920: 1080}


def write(folder, out, views=()):
  """Writes OUT/VIEW_WIDTH_SCHEME.png for each view, width and scheme."""
  from playwright import sync_api

  page_file = folder / 'explore.html'
  demo = pages.Demo(folder, page_file, pages.read_index(page_file))
  out.mkdir(parents=True, exist_ok=True)
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=pages.chromium(), args=['--no-sandbox']
    )
    for view in views or looks_test.VIEWS:
      for width, height in _HEIGHTS.items():
        for scheme in ('light', 'dark'):
          visit = pages.Visitor(browser)
          page = visit(
              page_file,
              width=width,
              scheme=scheme,
              fragment=looks_test.fragment(demo, view),
          )
          looks_test.ready(page, view)
          name = f'{view.replace(" ", "_")}_{width}_{scheme}.png'
          page.set_viewport_size({'width': width, 'height': height})
          page.screenshot(path=out / name, full_page=True)
          for problem in visit.finish():
            print(f'{name}: {problem}')
    browser.close()


if __name__ == '__main__':
  write(*map(pathlib.Path, sys.argv[1:3]), views=sys.argv[3:])
