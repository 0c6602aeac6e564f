"""Requests to a server: their contents, retries, refusals, and the key."""

import http.server
import json
import threading

import pytest

from jumprelu import errors
from jumprelu.explain import llm, remote_llm
from tests.explain import llm_test

_KEY = 'key-of-the-test-1234'


class _Handler(http.server.BaseHTTPRequestHandler):

  def do_POST(self):  # noqa: N802
    body = self.rfile.read(int(self.headers['Content-Length']))
    self.server.seen.append((self.path, dict(self.headers), json.loads(body)))
    replies = self.server.replies
    status, text = replies.pop(0) if len(replies) > 1 else replies[0]
    data = text.encode()
    self.send_response(status)
    if status in (301, 302):
      self.send_header('Location', '/elsewhere')
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  do_GET = do_POST  # noqa: N815

  def log_message(self, *args):
    """Writes no log."""


def _reply(text):
  return 200, json.dumps({'choices': [{'message': {'content': text}}]})


@pytest.fixture
def server():
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.seen, server.replies = [], [_reply('[1]')]
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  yield server
  server.shutdown()
  server.server_close()


def _model(server, waits=None, **changes):
  return remote_llm.RemoteLm(
      f'http://127.0.0.1:{server.server_port}/v1/',
      name='test-model',
      sleep=[].append if waits is None else waits.append,
      **changes,
  )


def test_a_prompt_is_one_message_of_the_user(server):
  requests = llm_test.requests_of(6)
  answers = list(_model(server, key=_KEY, parallel=3).answer(requests))
  assert [a.id for a in answers] == [r.id for r in requests]
  assert {a.text for a in answers} == {'[1]'}
  paths, headers, bodies = zip(*server.seen, strict=True)
  assert set(paths) == {'/v1/chat/completions'}
  assert {h['Authorization'] for h in headers} == {f'Bearer {_KEY}'}
  assert {body['messages'][0]['role'] for body in bodies} == {'user'}
  sent = sorted(body['messages'][0]['content'] for body in bodies)
  assert sent == [f'prompt {i}' for i in range(6)]
  assert bodies[0]['model'] == 'test-model' and bodies[0]['temperature'] == 0


def test_without_a_key_no_key_is_sent(server):
  list(_model(server).answer(llm_test.requests_of(1)))
  assert 'Authorization' not in server.seen[0][1]


def test_a_busy_server_is_asked_again(server):
  server.replies = [(429, 'busy'), (503, ''), _reply('[0]')]
  waits = []
  (answer,) = _model(server, waits).answer(llm_test.requests_of(1))
  assert answer.text == '[0]' and waits == [1, 2]
  server.replies, waits = [(500, 'broken')], []
  with pytest.raises(errors.UserError, match='status 500: broken; repeat'):
    list(_model(server, waits).answer(llm_test.requests_of(1)))
  assert waits == [1, 2, 4, 8]


@pytest.mark.parametrize('status', [301, 302])
def test_redirects_are_refused(server, status):
  server.replies = [(status, '')]
  with pytest.raises(errors.UserError, match=f'status {status}'):
    list(_model(server, key=_KEY).answer(llm_test.requests_of(1)))
  assert [path for path, _, _ in server.seen] == ['/v1/chat/completions']


@pytest.mark.parametrize(
    'reply', [_reply(''), _reply(None), (200, '{}'), (200, 'text')]
)
def test_an_empty_answer_is_an_error(server, reply):
  server.replies = [reply]
  (answer,) = _model(server).answer(llm_test.requests_of(1))
  assert answer.text == '' and answer.error == 'the server sent no text'


def test_the_key_is_in_no_message_and_no_file(server, tmp_path):
  path = tmp_path / 'answers.jsonl'
  server.replies = [_reply(f'I know {_KEY}'), (401, f'wrong key {_KEY}\n')]
  model = _model(server, key=_KEY, parallel=1)
  with pytest.raises(errors.UserError) as raised:
    llm.AnswersFile(path).ask(model, llm_test.requests_of(2))
  assert 'wrong key [key]' in str(raised.value)
  assert _KEY not in str(raised.value) and _KEY not in repr(model)
  assert 'I know [key]' in path.read_text() and _KEY not in path.read_text()


@pytest.mark.parametrize(
    'url',
    [
        'file:///etc/passwd',
        'localhost:8000',
        'http:///v1',
        f'http://{_KEY}@localhost/v1',
        f'http://localhost/v1?key={_KEY}',
    ],
)
def test_addresses_with_a_key_or_without_a_host_are_refused(url):
  with pytest.raises(errors.UserError, match='--llm_url') as raised:
    remote_llm.RemoteLm(url, name='x')
  assert _KEY not in str(raised.value)


def test_a_server_that_is_down_is_named(server):
  model = _model(server)
  server.shutdown()
  server.server_close()
  with pytest.raises(errors.UserError, match='refused; repeat the command'):
    list(model.answer(llm_test.requests_of(1)))
