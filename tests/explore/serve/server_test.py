"""The socket, and the end of the server at SIGINT and SIGTERM."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from jumprelu import errors
from jumprelu.explore.serve import server

# A server whose live model waits in `run`, and whose preparation can wait or
# fail too.
_SERVER = """
import sys, time
from jumprelu import errors
from jumprelu.explore.serve import app, server, worker

class Live:
  def run(self, **_):
    print('running', flush=True)
    time.sleep(60)

def prepare(report):
  report('loading')
  if sys.argv[1] == 'fail':
    raise errors.UserError('no such model')
  if sys.argv[1] == 'prepare':
    time.sleep(60)
  return Live()

listener = server.bind('127.0.0.1', 0)
page = app.Page(b'page', {}, "default-src 'none'")
server.run(page, worker.Worker(prepare), listener, host='127.0.0.1')
print('returned', flush=True)
"""


class Running:
  """A server in another process, and the lines that it prints."""

  def __init__(self, mode):
    self.process = subprocess.Popen(
        [sys.executable, '-c', _SERVER, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = self.wait_for('Ctrl-C stops the server')
    self.port = int(re.search(r'http://127\.0\.0\.1:(\d+)/', line)[1])

  def wait_for(self, text):
    for line in self.process.stdout:
      if text in line:
        return line
    raise AssertionError(self.process.stderr.read())

  def get(self, path):
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
    connection.request('GET', path)
    return connection.getresponse().read()

  def post_in_thread(self, path, body):
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
    connection.request('POST', path, body)
    thread = threading.Thread(
        target=lambda: connection.sock.recv(1), daemon=True
    )
    thread.start()


@pytest.fixture
def start():
  servers = []

  def make(mode):
    servers.append(Running(mode))
    return servers[-1]

  yield make
  for running in servers:
    running.process.kill()
    running.process.wait()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('state', ['idle', 'job', 'prepare'])
def test_a_signal_stops_the_server_within_two_seconds(start, number, state):
  running = start(state)
  if state == 'prepare':
    running.wait_for('loading')
    assert b'"ready":false' in running.get('/api/status')
  else:
    running.wait_for('ready')
    assert running.get('/') == b'page'
  if state == 'job':
    running.post_in_thread('/api/run', '{"text": ""}')
    running.wait_for('running')
  begin = time.monotonic()
  running.process.send_signal(number)
  out, err = running.process.communicate(timeout=30)
  assert time.monotonic() - begin < 2
  assert running.process.returncode == 0
  assert 'stopped\n' in out and err == ''
  # The command returns by itself unless a thread has to be abandoned.
  assert ('returned' in out) == (state == 'idle')


def test_a_failed_preparation_stops_the_server_with_its_error(start):
  running = start('fail')
  _, err = running.process.communicate(timeout=30)
  assert running.process.returncode == 1
  assert err.rstrip().endswith('UserError: no such model')


def test_a_port_in_use_is_an_error_with_a_cure():
  with server.bind('127.0.0.1', 0) as listener:
    port = listener.getsockname()[1]
    with pytest.raises(errors.UserError) as raised:
      server.bind('127.0.0.1', port)
  assert str(raised.value) == (
      f'--port={port}: Address already in use; choose another, or --port=0 for'
      ' any that is not in use'
  )


@pytest.mark.parametrize(
    ('host', 'cure'),
    [
        ('no such host', 'use 127.0.0.1'),
        ('192.0.2.1', 'not an address of this computer; use 127.0.0.1'),
    ],
)
def test_a_wrong_host_is_an_error_with_a_cure(host, cure):
  with pytest.raises(
      errors.UserError, match=re.escape(f'--host={host}: ')
  ) as e:
    server.bind(host, 0)
  assert str(e.value).endswith(cure)


def test_addresses_of_version_6_are_in_brackets():
  assert server.address('::1', 80) == 'http://[::1]:80/'
  assert server.address('localhost', 8080) == 'http://localhost:8080/'


def test_the_socket_is_on_the_loopback_interface_only():
  with server.bind('127.0.0.1', 0) as listener:
    assert listener.family == socket.AF_INET
    assert listener.getsockname()[0] == '127.0.0.1'
