"""startup.sh: exit codes that restart the trainer, their limit and pauses."""

import pathlib
import re
import shutil
import signal
import stat
import subprocess
import time

import pytest

_LAUNCH = pathlib.Path(__file__).parents[2] / 'launch'
_SCRIPT = _LAUNCH / 'startup.sh'

# Exits with the next code of a file, and repeats the last code.
_TRAINER = """#!/usr/bin/env bash
echo "$*" >> "{folder}/starts"
line=$(head -n 1 "{folder}/codes")
if [ "$(wc -l < "{folder}/codes")" -gt 1 ]; then sed -i 1d "{folder}/codes"; fi
exit "$line"
"""


def _write(path, text):
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def start(tmp_path):
  """Runs the script with a trainer that exits with `codes`.

  The fixture's function returns the exit code, the number of starts and the
  pauses.
  """
  _write(tmp_path / 'trainer', _TRAINER.format(folder=tmp_path))
  _write(tmp_path / 'sleep', '#!/bin/sh\n')

  def run(*codes, **env):
    (tmp_path / 'codes').write_text(''.join(f'{code}\n' for code in codes))
    done = subprocess.run(
        ['bash', _SCRIPT, tmp_path / 'trainer', '--a=b c', '$HOME'],
        env={'PATH': f'{tmp_path}:/usr/bin:/bin', **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = (tmp_path / 'starts').read_text().splitlines()
    assert set(lines) == {'--a=b c $HOME'}
    pauses = re.findall(r'in (\d+) s$', done.stderr, re.MULTILINE)
    return done.returncode, len(lines), list(map(int, pauses))

  return run


def test_a_saved_run_is_restarted_until_it_is_done(start):
  assert start(42, 42, 0, PAUSE_SECONDS='7') == (0, 3, [7, 7])


@pytest.mark.parametrize('code', [2, 65, 66, 70])
def test_a_fatal_code_stops_at_once(start, code):
  assert start(code) == (code, 1, [])


def test_a_killed_run_is_restarted_up_to_the_limit_with_longer_pauses(start):
  result = start(
      137, MAX_RESTARTS='6', PAUSE_SECONDS='10', MAX_PAUSE_SECONDS='60'
  )
  assert result == (137, 7, [10, 20, 40, 60, 60, 60])


@pytest.mark.parametrize('code', [1, 75, 134, 139, 143])
def test_any_other_code_is_counted(start, code):
  assert start(code, MAX_RESTARTS='1')[:2] == (code, 2)


def test_leaving_with_a_checkpoint_is_not_counted_and_resets_the_pause(start):
  codes = (137, 137, 42, 42, 137, 0)
  result = start(*codes, MAX_RESTARTS='3', PAUSE_SECONDS='5')
  assert result == (0, 6, [5, 10, 5, 5, 5])


def test_a_run_without_progress_is_not_restarted(start):
  """The trainer exits with 70 after three failures at one step."""
  assert start(137, 137, 137, 70)[:2] == (70, 4)


@pytest.mark.parametrize('code', [42, 0, 3])
def test_sigterm_reaches_the_trainer_and_prevents_a_restart(tmp_path, code):
  _write(
      tmp_path / 'trainer',
      '#!/usr/bin/env bash\n'
      f'trap "sleep 0.3; exit {code}" TERM\n'
      f'echo >> {tmp_path}/starts\n'
      'while true; do sleep 0.05; done\n',
  )
  child = subprocess.Popen(['bash', _SCRIPT, tmp_path / 'trainer'])
  try:
    until = time.monotonic() + 30
    while not (tmp_path / 'starts').exists():
      assert time.monotonic() < until
      time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == code
  finally:
    child.kill()
  assert (tmp_path / 'starts').read_text() == '\n'


def test_sigterm_during_a_pause_ends_it(tmp_path):
  _write(tmp_path / 'trainer', '#!/bin/sh\nexit 9\n')
  child = subprocess.Popen(
      ['bash', _SCRIPT, tmp_path / 'trainer'],
      env={'PATH': '/usr/bin:/bin', 'PAUSE_SECONDS': '50'},
      stderr=subprocess.PIPE,
      text=True,
  )
  try:
    assert 'restart 1 of 8 in 50 s' in child.stderr.readline()
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=20) == 9
  finally:
    child.kill()


@pytest.mark.parametrize('path', sorted(_LAUNCH.rglob('*.sh')), ids=str)
def test_scripts_are_valid_bash(path):
  subprocess.run(['bash', '-n', path], check=True, timeout=60)
  linter = shutil.which('shellcheck')
  if linter:
    subprocess.run([linter, path], check=True, timeout=60)
