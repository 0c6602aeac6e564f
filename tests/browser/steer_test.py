"""The tab "Steer": its sliders, its requests, and both continuations."""

import threading

import pytest

from tests.browser import looks_test, pages
from tests.browser.pages import expect

pytestmark = pytest.mark.browser

TEXT = 'import os\n'


class Recorder:
  """A live model that records the fields of requests."""

  def __init__(self):
    self.requests = []

  def steer(self, **fields):
    self.requests.append(fields)
    edited = ' steered' if fields['edits'] else ' plain'
    return {
        'plain': [{'id': 5, 'piece': ' plain'}],
        'edited': [{'id': 6, 'piece': edited}],
    }


@pytest.fixture(scope='module')
def member(demo):
  return demo.member()


@pytest.fixture(scope='module')
def served(demo, member):
  """Returns the address of a page with one member, and its live model."""
  import uvicorn

  from jumprelu.explore import page_data
  from jumprelu.explore.serve import app, guard, server, worker

  page = page_data.collect(
      demo.features,
      title='demo',
      members=[member['id']],
      results=list(demo.results.values()),
      curves=[],
  )
  recorder = Recorder()
  jobs = worker.Worker(lambda report: recorder)
  jobs.start()
  listener = server.bind('127.0.0.1', 0)
  port = listener.getsockname()[1]
  made = app.make(
      app.make_page(page, max_tokens=256), jobs, guard.hosts('127.0.0.1', port)
  )
  running = uvicorn.Server(uvicorn.Config(made, log_level='critical'))
  thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
  thread.start()
  yield f'http://127.0.0.1:{port}/', recorder
  running.should_exit = True
  thread.join(30)


@pytest.fixture
def steer(visit, served):
  page = visit(served[0], fragment='live/steer')
  expect(page.get_by_role('button', name='Run')).to_be_enabled(timeout=120_000)
  page.get_by_role('textbox', name='Text', exact=True).fill(TEXT)
  return page


def _latent(demo, member):
  row = max(demo.rows(member), key=lambda row: row['largest'])
  return row['latent'], row['largest']


def _run(page, recorder):
  """Returns the fields of the request of a press of Run."""
  before = len(recorder.requests)
  button = page.get_by_role('button', name='Run')
  button.click()
  expect(button).to_be_enabled()
  # Not by role, because each slider's output has it too.
  expect(page.locator('main [role=status]').first).to_have_text('')
  assert len(recorder.requests) == before + 1
  return recorder.requests[-1]


def test_strengths_are_in_units_of_the_largest_activation(
    steer, served, demo, member
):
  latent, largest = _latent(demo, member)
  steer.get_by_label('Latent 1', exact=True).fill(str(latent))
  for strength in (1, -0.5):
    steer.get_by_role('slider', name='Strength 1').fill(str(strength))
    fields = _run(steer, served[1])
    (edit,) = fields['edits']
    assert (edit.latent, edit.op) == (latent, 'add')
    assert edit.value == pytest.approx(strength * largest, rel=1e-5)
    shown = steer.locator('.sliders output').inner_text()
    assert pages.equal(shown.partition('(')[2].rstrip(')'), edit.value)
  assert fields['member'] == member['id'] and fields['text'] == TEXT
  for name, piece in (('without', ' plain'), ('with', ' steered')):
    line = steer.get_by_role('group', name=f'New tokens {name} edits')
    assert pages.plain_tokens(line) == [piece]


def test_several_latents_are_edited_at_once(steer, served):
  more = steer.get_by_role('button', name='Add a latent')
  while steer.get_by_role('slider').count() < 4:
    more.click()
  expect(more).to_be_disabled()
  steer.get_by_label('Latent 4', exact=True).fill('7')
  steer.get_by_label('Change 4').select_option('ablate')
  edits = _run(steer, served[1])['edits']
  assert len(edits) == 4 and (edits[3].latent, edits[3].op) == (7, 'ablate')
  while steer.get_by_role('slider').count() > 1:
    steer.get_by_role('button', name='Remove').first.click()
  expect(steer.get_by_label('Latent 1', exact=True)).to_have_value('7')
  (edit,) = _run(steer, served[1])['edits']
  assert (edit.latent, edit.op) == (7, 'ablate')


@pytest.mark.parametrize('width', [1280, 360])
def test_the_tab_fits_and_is_readable(steer, served, width):
  _run(steer, served[1])
  steer.set_viewport_size({'width': width, 'height': 800})
  steer.wait_for_timeout(150)
  assert steer.evaluate(looks_test.OVERFLOW) == []
  assert steer.evaluate(looks_test.NAMELESS) == []
  for scheme in ('light', 'dark'):
    steer.emulate_media(color_scheme=scheme, reduced_motion='reduce')
    assert steer.evaluate(looks_test.CONTRAST, 4.5)['low'] == []
  if width == 360:
    assert steer.evaluate(looks_test.SMALL, 24) == []
