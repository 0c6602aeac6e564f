"""The addresses of the server: answers, limits, and refusals in one line."""

import asyncio
import http
import json
import threading

import httpx
import pytest
from starlette import requests, testclient

from jumprelu import errors
from jumprelu.explore.serve import app, fields, live, worker
from tests.explore.serve import conftest

MEMBER = 'resid_post/layer_2/width_64/average_l0_20'
# A request of each address.
REQUESTS = {
    'run': {},
    'rank': {'member': MEMBER},
    'logits': {'member': MEMBER},
    'attribution': {'member': MEMBER},
    'generate': {},
    'steer': {'member': MEMBER},
    'activations': {'member': MEMBER},
}


class Echo:
  """A live model that returns its arguments."""

  def __getattr__(self, name):
    return lambda **arguments: {'name': name, **arguments}


class Held(Echo):
  """A live model whose job waits."""

  def __init__(self):
    self.started, self.released = threading.Event(), threading.Event()

  def run(self, **arguments):
    self.started.set()
    assert self.released.wait(60)
    return arguments


def client_of(live_model, **options):
  jobs = conftest.started(live_model)
  return client(jobs, **options)


def client(jobs, **options):
  made = app.make(conftest.PAGE, jobs, conftest.HOSTS)
  return testclient.TestClient(
      made, base_url=f'http://{conftest.HOST}', **options
  )


@pytest.fixture(scope='module')
def echo():
  return client_of(Echo())


def refused(response, status, *words):
  """Checks a refusal: its status, and a single line with the words."""
  assert response.status_code == status, response.text
  body = response.json()
  assert list(body) == ['error'] and '\n' not in body['error']
  for word in words:
    assert word in body['error']


def test_the_page_and_its_files_come_from_memory(echo):
  response = echo.get('/')
  assert response.content == conftest.PAGE.html
  assert response.headers['content-type'] == 'text/html; charset=utf-8'
  response = echo.get('/data/m0/0.js')
  assert response.content == conftest.PAGE.files['m0/0.js']
  assert response.headers['content-type'].startswith('text/javascript')


@pytest.mark.parametrize(
    'path', ['/data/m0/1.js', '/data/../app.py', '/data/', '/x', '/api/no']
)
def test_an_unknown_address_is_not_found(echo, path):
  refused(echo.get(path), 404)


def test_only_the_methods_of_the_table_are_allowed(echo):
  refused(echo.get('/api/run'), 405)
  refused(echo.post('/api/status'), 405)
  refused(echo.put('/'), 405)


def test_every_response_has_the_headers(echo):
  responses = [
      echo.get('/'),
      echo.get('/x'),
      echo.get('/data/m0/0.js'),
      echo.get('/api/status'),
      echo.post('/api/run', json={'text': ''}),
      echo.post('/api/run', content='no'),
      echo.get('/', headers={'host': 'evil.example'}),
  ]
  for response in responses:
    headers = response.headers
    assert headers['content-security-policy'] == 'csp'
    assert headers['x-content-type-options'] == 'nosniff'
    assert headers['referrer-policy'] == 'no-referrer'
    assert headers['cache-control'] == 'no-store'
    assert headers['cross-origin-resource-policy'] == 'same-origin'
    assert 'access-control-allow-origin' not in headers


@pytest.mark.parametrize('name', REQUESTS)
def test_a_request_reaches_the_live_model_with_defaults(echo, name):
  response = echo.post(f'/api/{name}', json={'text': 'a'} | REQUESTS[name])
  assert response.status_code == http.HTTPStatus.OK
  expected = {
      'run': {'members': None, 'k': 8},
      'rank': {'k': 50, 'by': 'largest'},
      'logits': {'keep_error': False},
      'attribution': {'target': None},
      'generate': {'tokens': 20, 'temperature': 0, 'seed': 0, 'member': None},
      'steer': {'edits': [], 'tokens': 20, 'temperature': 0, 'seed': 0},
      'activations': {},
  }[name]
  assert response.json() == expected | REQUESTS[name] | {
      'name': name,
      'text': 'a',
  }


@pytest.mark.parametrize('name', REQUESTS)
def test_the_live_model_has_a_method_for_each_address(name):
  assert callable(getattr(live.Live, name))


@pytest.mark.parametrize(
    'body',
    [
        b'',
        b'{',
        b'[]',
        b'"text"',
        b'null',
        b'\xff\xfe',
        b'[' * 60_000,
        b'{"text": ' + b'1' * 5_000 + b'}',
    ],
    ids=range(8),
)
def test_a_body_that_is_no_json_object_is_refused(echo, body):
  refused(echo.post('/api/run', content=body), 400)


@pytest.mark.parametrize(
    ('name', 'change', 'word'),
    [
        ('run', {'text': None}, 'text: '),
        ('run', {'text': 3}, 'text: '),
        ('run', {'members': []}, 'members: '),
        ('run', {'members': 'a'}, 'members: '),
        ('run', {'members': [1]}, 'members: '),
        ('run', {'k': 0}, 'k: must be a whole number from 1 to 32'),
        ('run', {'k': 33}, 'k: '),
        ('run', {'k': 1.5}, 'k: '),
        ('run', {'k': True}, 'k: '),
        ('run', {'K': 1}, "'K': no such field"),
        ('run', {'member': MEMBER}, 'did you mean members?'),
        ('rank', {'member': None}, 'member: '),
        ('rank', {'by': 'l0'}, 'by: must be one of largest, mean, count'),
        ('rank', {'by': []}, 'by: '),
        ('logits', {'keep_error': 1}, 'keep_error: must be true or false'),
        ('attribution', {'target': -1}, 'target: '),
        ('attribution', {'target': True}, 'target: '),
        ('attribution', {'target': '\ud800'}, 'target: '),
        ('generate', {'tokens': 65}, 'tokens: '),
        ('generate', {'tokens': 0}, 'tokens: '),
        ('generate', {'temperature': -1}, 'temperature: '),
        ('generate', {'temperature': 1e999}, 'temperature: '),
        ('generate', {'temperature': float('nan')}, 'temperature: '),
        ('generate', {'seed': 2**31}, 'seed: '),
        ('generate', {'seed': 10**400}, 'seed: '),
        ('generate', {'member': 1}, 'member: '),
        ('steer', {'edits': 3}, 'edits: must be a list of at most 4 edits'),
        ('steer', {'edits': [{'latent': 1}] * 5}, 'edits: must be a list'),
        ('steer', {'edits': [{'op': 'add'}]}, 'object with latent, op and'),
        ('steer', {'edits': [{'latent': -1}]}, 'latent: '),
        ('steer', {'edits': [{'latent': 1, 'op': 'x'}]}, 'op: must be one of'),
        ('steer', {'edits': [{'latent': 1, 'value': 1e9}]}, 'value: '),
        ('steer', {'edits': [{'latent': 1, 'unit': 2}]}, 'unit'),
    ],
)
def test_a_wrong_field_is_named(echo, name, change, word):
  body = {'text': 'a'} | REQUESTS[name] | change
  refused(echo.post(f'/api/{name}', content=json.dumps(body)), 400, word)


def test_a_long_field_name_is_not_repeated_whole(echo):
  response = echo.post('/api/run', json={'text': '', 'x' * 9_000: 1})
  refused(response, 400, 'no such field')
  assert len(response.text) < 300


def test_a_nul_is_text(echo):
  response = echo.post('/api/run', json={'text': 'a\x00b'})
  assert response.json()['text'] == 'a\x00b'


def test_a_lone_surrogate_is_refused_with_its_index(echo):
  response = echo.post('/api/run', content=b'{"text": "ab\\ud800c"}')
  refused(response, 400, 'text: ', 'lone surrogate at index 2')
  pair = echo.post('/api/run', content=b'{"text": "\\ud83d\\ude00"}')
  assert pair.json()['text'] == '\U0001f600'


def test_a_long_body_is_refused(echo):
  room = fields.MAX_BYTES - len(json.dumps({'text': ''}))
  fits = echo.post('/api/run', content=json.dumps({'text': 'a' * room}))
  assert fits.status_code == http.HTTPStatus.OK
  refused(
      echo.post('/api/run', content=json.dumps({'text': 'a' * (room + 1)})),
      413,
      str(fields.MAX_BYTES),
  )


def test_a_long_body_without_a_length_is_refused(echo):
  parts = (b'a' * 1024 for _ in range(100))
  refused(echo.post('/api/run', content=parts), 413)


def test_a_long_body_is_refused_before_it_is_read():
  async def receive():
    raise AssertionError('the body was read')

  headers = [(b'content-length', str(fields.MAX_BYTES + 1).encode())]
  request = requests.Request(
      {'type': 'http', 'method': 'POST', 'headers': headers}, receive
  )
  with pytest.raises(fields.Refused, match='shorten it'):
    asyncio.run(app._body(request))


def test_a_slow_body_is_refused(monkeypatch):
  monkeypatch.setattr(app, '_BODY_SECONDS', 0.05)

  async def receive():
    await asyncio.sleep(60)

  request = requests.Request(
      {'type': 'http', 'method': 'POST', 'headers': []}, receive
  )
  with pytest.raises(fields.Refused, match='incomplete'):
    asyncio.run(app._body(request))


@pytest.mark.parametrize(
    'host',
    ['evil.example:8080', '127.0.0.1:80', '127.0.0.1', 'localhost', '', 'a b'],
)
@pytest.mark.parametrize('path', ['/', '/data/m0/0.js', '/api/status'])
def test_another_host_is_refused(echo, host, path):
  response = echo.get(path, headers={'host': host})
  refused(response, 403, 'Host', 'http://localhost:8080')


@pytest.mark.parametrize('host', ['127.0.0.1:8080', 'LOCALHOST:8080'])
def test_the_own_host_is_allowed(echo, host):
  assert echo.get('/', headers={'host': host}).status_code == 200


@pytest.mark.parametrize(
    'origin',
    [
        'http://evil.example',
        'null',
        'https://127.0.0.1:8080',
        'http://127.0.0.1:8081',
        'http://localhost:8080',
        '',
    ],
)
def test_another_origin_is_refused(echo, origin):
  headers = {'origin': origin}
  refused(echo.get('/api/status', headers=headers), 403, 'Origin')
  response = echo.post('/api/run', json={'text': ''}, headers=headers)
  refused(response, 403, 'Origin')


def test_the_own_origin_is_allowed(echo):
  headers = {'origin': 'http://127.0.0.1:8080'}
  response = echo.post('/api/run', json={'text': ''}, headers=headers)
  assert response.status_code == 200


def test_two_hosts_are_refused(echo):
  headers = httpx.Headers([('host', conftest.HOST), ('host', 'evil.example')])
  refused(echo.get('/', headers=headers), 403)


def test_web_sockets_are_refused(echo):
  with pytest.raises(testclient.WebSocketDisconnect):
    with echo.websocket_connect('/'):
      pass


def test_before_the_model_is_ready_requests_wait():
  release = threading.Event()

  def prepare(report):
    report('compiling: logits')
    assert release.wait(60)
    return Echo()

  jobs = worker.Worker(prepare)
  waiting = client(jobs)
  assert waiting.get('/api/status').json()['ready'] is False
  jobs.start()
  while jobs.status['message'] == 'starting':
    pass
  assert waiting.get('/api/status').json() == {
      'ready': False,
      'message': 'compiling: logits',
      'busy': False,
  }
  for name, body in REQUESTS.items():
    response = waiting.post(f'/api/{name}', json={'text': 'a'} | body)
    refused(response, 503, 'compiling: logits')
    assert response.headers['retry-after'] == '1'
  assert waiting.get('/').status_code == 200
  release.set()
  while jobs.is_working:
    pass
  assert waiting.post('/api/run', json={'text': 'a'}).status_code == 200


def test_a_second_request_is_refused_while_a_job_runs():
  held = Held()
  busy = client_of(held)
  answers = []

  def first():
    answers.append(busy.post('/api/run', json={'text': 'a'}))

  thread = threading.Thread(target=first)
  thread.start()
  assert held.started.wait(60)
  for name, body in REQUESTS.items():
    response = busy.post(f'/api/{name}', json={'text': 'a'} | body)
    refused(response, 429, 'busy')
    assert response.headers['retry-after'] == '1'
  assert busy.get('/api/status').json()['busy'] is True
  assert busy.get('/').status_code == 200
  # A wrong request is answered at once, because it needs no job.
  refused(busy.post('/api/run', json={}), 400)
  held.released.set()
  thread.join()
  assert answers[0].status_code == 200
  assert busy.get('/api/status').json()['busy'] is False
  assert busy.post('/api/rank', json={'text': '', 'member': MEMBER}).is_success


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (fields.Refused(413, 'text: too\nlong'), 413),
        (errors.UserError("'as  if' is 2 tokens"), 400),
        (ZeroDivisionError('secret'), 500),
    ],
)
def test_an_error_is_one_line_and_frees_the_server(error, status, capsys):
  class Failing(Echo):

    def run(self, **_):
      raise error

  failing = client_of(Failing(), raise_server_exceptions=False)
  for _ in range(2):
    response = failing.post('/api/run', json={'text': ''})
    refused(response, status)
    assert 'secret' not in response.text
  assert ('ZeroDivisionError' in capsys.readouterr().err) == (status == 500)
  assert failing.get('/api/status').json()['busy'] is False


def test_a_number_that_is_not_finite_is_a_defect():
  class Infinite(Echo):

    def run(self, **_):
      return float('inf')

  failing = client_of(Infinite(), raise_server_exceptions=False)
  refused(failing.post('/api/run', json={'text': ''}), 500)
