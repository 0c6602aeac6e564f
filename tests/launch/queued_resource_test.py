"""Queued resources: the gcloud command and the start-up script."""

import os
import pathlib
import shlex
import stat
import subprocess

import pytest

from launch import queued_resource, trainer
from tests.launch import small_launch

_GOLDENS = pathlib.Path(__file__).parent / 'goldens'


def _spec(*flags, **changes):
  return small_launch.make_spec(*flags, target='queued_resource', **changes)


def test_the_script_is_the_stored_one():
  """UPDATE_GOLDENS=1 rewrites the stored scripts."""
  made = _spec(
      spot=True,
      secrets=('HF_TOKEN=hf:3',),
      env=('XLA_FLAGS=--xla_a=1 --xla_b=2',),
      service_account='trainer@my-project.iam.gserviceaccount.com',
  )
  files = {
      'startup.sh': queued_resource.render_script(made, 12),
      'create.sh': queued_resource.render_create(made),
  }
  for name, text in files.items():
    path = _GOLDENS / f'queued_resource_{name}'
    if os.environ.get('UPDATE_GOLDENS'):
      path.write_text(text, 'utf-8')
    assert path.read_text('utf-8') == text
    subprocess.run(['bash', '-n', path], check=True, timeout=60)


def test_the_command_requests_the_slice():
  argv = queued_resource.make_argv(_spec(), 12)
  assert argv[:6] == [
      *'gcloud compute tpus queued-resources create'.split(),
      'scope-2b-l12',
  ]
  assert '--accelerator-type=v5litepod-16' in argv
  assert '--runtime-version=v2-alpha-tpuv5-lite' in argv
  assert '--spot' not in argv
  assert '--spot' in queued_resource.make_argv(_spec(spot=True), 12)
  account = 'a@b.iam.gserviceaccount.com'
  argv = queued_resource.make_argv(_spec(service_account=account), 12)
  assert f'--service-account={account}' in argv


@pytest.mark.parametrize(
    'word',
    [
        'a b',
        "it's",
        '$(touch x)',
        '`touch x`',
        'a;b',
        'a\nb',
        '*',
        'größe',
        '"',
    ],
)
def test_any_word_reaches_the_trainer_unchanged(tmp_path, word):
  """The script runs with a fake docker."""
  made = _spec(
      f'--data={word}', env=(f'WORD={word}',), secrets=('TOKEN=hf:latest',)
  )
  fakes = {
      'docker': f'printf "%s\\0" "$TOKEN" "$@" > {tmp_path}/argv',
      'gcloud': 'case $1 in secrets) echo from-the-manager ;; esac',
  }
  for name, body in fakes.items():
    path = tmp_path / name
    path.write_text(f'#!/bin/bash\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
  subprocess.run(
      ['bash', '-c', queued_resource.render_script(made, 12)],
      env={'PATH': f'{tmp_path}:/usr/bin:/bin'},
      cwd=tmp_path,
      check=True,
      timeout=60,
  )
  token, *argv = (tmp_path / 'argv').read_text().split('\0')[:-1]
  assert token == 'from-the-manager'
  assert argv[:2] == ['run', '--rm'] and f'--env=WORD={word}' in argv
  # The arguments hold the variable's name and not its value.
  assert '--env=TOKEN' in argv and 'from-the-manager' not in argv
  image = argv.index(small_launch.IMAGE)
  assert argv[image + 1 :] == made.command(12)[1:]
  assert not (tmp_path / 'x').exists()


def test_the_trainer_reads_the_command_of_the_script():
  made = _spec()
  (line,) = [
      line
      for line in queued_resource.render_script(made, 12).splitlines()
      if line.startswith('set -- ')
  ]
  words = shlex.split(line)
  command = words[words.index(made.options.image) + 1 :]
  _, config = trainer.parse(['python', *command])
  assert (config.model, config.layer) == ('gemma2_2b', 12)
