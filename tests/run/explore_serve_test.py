"""`jumprelu explore --serve` checks its flags, and serves until it is stopped."""

import http.client
import json
import re
import signal
import subprocess
import sys

import pytest

from jumprelu.explore.serve import server, source
from jumprelu.run import main
from tests.features import conftest as features

release, model, folder = features.release, features.model, features.folder


def line_of(argv, capsys):
  """Returns the error of a command, which is one line."""
  assert main.main(['explore', *argv]) == 2
  err = capsys.readouterr().err
  assert err.startswith('jumprelu explore: ') and err.count('\n') == 1
  return err


def test_serving_needs_a_release_and_no_output(capsys, tmp_path):
  assert '--release is needed' in line_of(['--serve'], capsys)
  flags = [f'--release={tmp_path}', '--serve', f'--out={tmp_path / "a.html"}']
  assert 'leave out --out' in line_of(flags, capsys)


def test_a_port_in_use_fails_before_features_are_collected(release, capsys):
  with server.bind('127.0.0.1', 0) as listener:
    port = listener.getsockname()[1]
    flags = [f'--release={release}', '--serve', f'--port={port}']
    assert f'--port={port}: Address already in use' in line_of(flags, capsys)
  assert not list(release.parent.glob('*.features'))


def test_a_missing_library_is_named_with_the_extra(
    release, capsys, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'starlette', None)
  line = line_of([f'--release={release}', '--serve'], capsys)
  assert line == (
      "jumprelu explore: needs starlette; pip install 'jumprelu[serve]'\n"
  )


def test_libraries_are_imported_before_the_worker_starts(
    release, folder, monkeypatch
):
  # While gemma is imported, other threads cannot import.
  calls = []
  monkeypatch.setattr(
      source.Source, 'import_libraries', lambda self: calls.append('import')
  )
  monkeypatch.setattr(server, 'run', lambda *args, **kw: calls.append('run'))
  arguments = [f'--release={release}', f'--features={folder}', '--port=0']
  assert main.main(['explore', '--serve', *arguments]) == 0
  assert calls == ['import', 'run']


@pytest.mark.slow
def test_the_command_serves_a_page_and_its_live_model(release, folder):
  process = subprocess.Popen(
      [
          sys.executable,
          '-m',
          'jumprelu.run.explore',
          f'--release={release}',
          f'--features={folder}',
          '--serve',
          '--port=0',
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )
  try:
    lines = []
    for line in process.stdout:
      lines.append(line.rstrip())
      if line == 'ready\n':
        break
    text = '\n'.join(lines)
    assert lines[0] == 'explore: page'
    address = re.search(r'http://(127\.0\.0\.1:\d+)/: open it', text)[1]
    phases = [line for line in lines if line.startswith('compiling: ')]
    assert 'loading gemma2_nano' in lines and len(phases) == 8
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request('GET', '/')
    page = connection.getresponse().read().decode()
    index = json.loads(
        re.search(r'id="jumprelu-index">(.*?)</script>', page, re.S)[1]
    )
    limits = {'max_tokens': 256, 'max_new_tokens': 64, 'max_edits': 4}
    assert index['live'] == limits
    body = json.dumps({'text': 'def f(x):\n  return x'})
    connection.request('POST', '/api/run', body)
    result = json.loads(connection.getresponse().read())
    members = [member['id'] for member in index['members']]
    assert [member['id'] for member in result['members']] == members
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and 'stopped' in out, err
  finally:
    process.kill()
    process.wait()
