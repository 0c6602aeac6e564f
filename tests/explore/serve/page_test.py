"""The served page: its live model, its files in memory, and no file written."""

import base64
import gzip
import os
import sys
import threading

import pytest

from jumprelu.explore import html_page
from jumprelu.explore.serve import app
from tests.explore import conftest as explore
from tests.explore.serve import app_test, conftest

folder, page_data = explore.folder, explore.page_data

TEXT = 'with open(path) as f:'


@pytest.fixture(scope='module')
def page(page_data):
  return app.make_page(page_data, max_tokens=123)


def test_the_index_has_the_limits_and_the_names_of_files(page, page_data):
  index, blobs = explore.read_page(page.html.decode())
  assert index['live'] == {
      'max_tokens': 123,
      'max_new_tokens': 64,
      'max_edits': 4,
  }
  assert index['blobs'] == 'files' and not blobs
  assert index['members'] == page_data.index['members']
  names = {'vocabulary', 'texts'}
  for member in index['members']:
    names |= {member['table'], member['search'], *member['shards']}
  assert set(page.files) == {f'{name}.js' for name in names}


def test_a_file_is_a_script_that_hands_over_its_container(page, page_data):
  name = 'm1/table'
  script = page.files[f'{name}.js'].decode()
  prefix, suffix = f'__jumprelu_blob("{name}","', '");\n'
  assert script.startswith(prefix) and script.endswith(suffix)
  encoded = script.removeprefix(prefix).removesuffix(suffix)
  container = gzip.decompress(base64.b64decode(encoded))
  assert container == dict(page_data.containers())[name]


def test_the_policy_allows_the_server_alone(page):
  policy = dict(part.strip().split(' ', 1) for part in page.policy.split(';'))
  assert policy['default-src'] == "'none'"
  assert policy['connect-src'] == "'self'"
  assert policy['img-src'] == 'data:'
  assert policy['frame-ancestors'] == "'none'"
  script = policy['script-src'].split()
  assert len(script) == 2 and "'self'" in script
  assert script[0].startswith("'sha256-")
  assert policy['style-src'].startswith("'sha256-")
  assert 'Content-Security-Policy' not in page.html.decode()
  assert html_page.static('app.js') in page.html.decode()


def written_by(action):
  """Returns the files that an action opens for writing or creates."""
  files, active = [], True

  def watch(event, arguments):
    if not active:
      return
    if event in ('os.mkdir', 'os.rename', 'os.truncate', 'os.symlink'):
      files.append((event, arguments))
    if event == 'open' and isinstance(arguments[2], int):
      writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
      if arguments[2] & writes and arguments[0] != os.devnull:
        files.append((event, arguments))

  sys.addaudithook(watch)  # It cannot be removed.
  try:
    action()
  finally:
    active = False
  return files


def test_writes_are_noticed(tmp_path):
  assert written_by(lambda: (tmp_path / 'a').write_text('a'))
  assert written_by(lambda: (tmp_path / 'b').mkdir())
  in_thread = threading.Thread(target=(tmp_path / 'c').write_text, args=('a',))

  def run():
    in_thread.start()
    in_thread.join()

  assert written_by(run)


def test_requests_write_no_file(page, live_model, saes):
  made = app.make(page, conftest.started(live_model), conftest.HOSTS)
  client = app_test.testclient.TestClient(
      made, base_url=f'http://{conftest.HOST}'
  )
  member = next(iter(saes))
  bodies = {
      name: {'text': TEXT} | body | ({'member': member} if body else {})
      for name, body in app_test.REQUESTS.items()
  }

  def everything():
    assert client.get('/').is_success
    for name in page.files:
      assert client.get(f'/data/{name}').is_success
    for name, body in bodies.items():
      response = client.post(f'/api/{name}', json=body)
      assert response.is_success, response.text
      assert response.json().get('tokens') or name in ('logits', 'steer')

  everything()  # Compiles.
  assert written_by(everything) == []


def test_errors_of_the_live_model_reach_the_client(page, live_model, saes):
  made = app.make(page, conftest.started(live_model), conftest.HOSTS)
  client = app_test.testclient.TestClient(
      made, base_url=f'http://{conftest.HOST}'
  )
  body = {'text': TEXT, 'member': 'resid_post/28'}
  app_test.refused(client.post('/api/rank', json=body), 400, 'members: ')
  body = {'text': TEXT, 'member': next(iter(saes)), 'target': 'two tokens'}
  response = client.post('/api/attribution', json=body)
  app_test.refused(response, 400, 'choose one, as text or id')
  long = {'text': '\x00' * conftest.LENGTHS[-1]}
  app_test.refused(client.post('/api/run', json=long), 413, 'shorten it')
  exact = {'text': '\x00' * (conftest.LENGTHS[-1] - 1)}
  assert client.post('/api/run', json=exact).is_success
