"""Every command of launch/README.md runs; the image and the disk are sound.

The blocks run in bash unchanged. Fakes of the cloud programs record their
calls, and the recorded calls of this project's programs are then run for real.
"""

import json
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from jumprelu.run import main as jumprelu_main
from launch import main, trainer
from tests.launch import small_launch

_LAUNCH = pathlib.Path(__file__).parents[2] / 'launch'
_README = (_LAUNCH / 'README.md').read_text('utf-8')
_BLOCKS = re.findall(r'^```sh\n(.*?)^```', _README, re.DOTALL | re.MULTILINE)
_PROGRAMS = ('bash', 'docker', 'gcloud', 'jumprelu', 'kubectl', 'python', 'xpk')

_FAKE = """#!{python}
import json, os, sys
name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == 'bash' and os.path.exists(argv[0]):
  os.execv('/bin/bash', ['bash', *argv])
with open({log!r}, 'a') as f:
  f.write(json.dumps([name, *argv]) + '\\n')
if 'inspect' in argv:
  print({image!r})
if name == 'kubectl' and 'get' in argv:
  print('files-1')
if '--target=queued_resource' in argv:
  os.execv({python!r}, [{python!r}, '-P', {launcher!r}, *argv[2:]])
"""


@pytest.fixture(scope='module')
def calls(tmp_path_factory):
  """Runs all blocks in one shell; returns the calls, program name first."""
  folder = tmp_path_factory.mktemp('readme')
  log = folder / 'log'
  text = _FAKE.format(
      python=sys.executable,
      log=str(log),
      image=small_launch.IMAGE,
      launcher=str(folder / 'launcher.py'),
  )
  (folder / 'launcher.py').write_text(
      f'import sys\nsys.path.append({str(_LAUNCH.parent)!r})\n'
      'from launch import main\nsys.exit(main.main())\n'
  )
  (folder / 'bin').mkdir()
  for name in _PROGRAMS:
    path = folder / 'bin' / name
    path.write_text(text)
    path.chmod(0o755)
  done = subprocess.run(
      ['/bin/bash', '-eu', '-c', '\n'.join(_BLOCKS)],
      env={'PATH': f'{folder}/bin:/usr/bin:/bin', 'JAX_PLATFORMS': 'cpu'},
      cwd=folder,
      capture_output=True,
      text=True,
      timeout=120,
      check=False,
  )
  assert done.returncode == 0, done.stderr
  return [json.loads(line) for line in log.read_text().splitlines()]


def _launches(calls):
  start = ['python', '-m', 'launch.main']
  return [call[3:] for call in calls if call[:3] == start]


def test_the_readme_has_commands_and_runs_no_other_program(calls):
  assert len(_BLOCKS) >= 8
  assert {call[0] for call in calls} == set(_PROGRAMS) - {'bash'}
  words = '\n'.join(_BLOCKS)
  assert len(_launches(calls)) == words.count('python -m launch.main') == 4


def test_the_launcher_accepts_every_launch_of_the_readme(
    calls, capsys, tmp_path, monkeypatch
):
  kubectl_calls = small_launch.install_fakes(tmp_path, monkeypatch, 'kubectl')
  monkeypatch.setattr(main, 'run_locally', lambda launched: 0)
  monkeypatch.chdir(tmp_path)
  for argv in _launches(calls):
    assert main.main(argv) == 0, capsys.readouterr().err
  assert len(list((tmp_path / 'manifests').iterdir())) == 26
  # The applied manifests are those that were reviewed.
  (call,) = kubectl_calls()
  applied = list(yaml.safe_load_all(call['text']))
  shown = sorted((tmp_path / 'manifests').iterdir())
  assert applied == [yaml.safe_load(p.read_text('utf-8')) for p in shown]


def test_the_rendered_script_of_the_readme_requests_its_slice(calls):
  created = [c for c in calls if c[:5] == _words('queued-resources create')]
  assert [call[5] for call in created] == ['scope-2b-l12']


def _words(text):
  return ['gcloud', 'compute', 'tpus', *text.split()]


def test_jumprelu_accepts_its_commands(calls, capsys):
  commands = [
      call[call.index('jumprelu') + 1 :] for call in calls if 'jumprelu' in call
  ]
  commands = [words for words in commands if words[0] in jumprelu_main.COMMANDS]
  assert {words[0] for words in commands} == {'status', 'release'}
  for words in commands:
    # Valid flags of a missing run.
    assert jumprelu_main.main(words) == 66, capsys.readouterr().err


def test_the_trainer_accepts_the_command_of_xpk(calls):
  (call,) = [call for call in calls if call[0] == 'xpk']
  (command,) = [a.partition('=')[2] for a in call if a.startswith('--command=')]
  _, config = trainer.parse(command.split())
  assert config.layer == 12


def test_the_table_of_exit_codes_is_the_contract():
  rows = re.findall(
      r'^\| (\d+) \|.*\| (.*?) \| (.*?) \|$', _README, re.MULTILINE
  )
  contract = {int(code): (jobset, script) for code, jobset, script in rows}
  fatal = {code for code, (jobset, _) in contract.items() if 'fails' in jobset}
  assert fatal == set(main.jobset.FATAL)
  assert contract[75] == ('restarts, counted', 'starts again, counted')
  assert contract[42] == ('restarts', 'starts again')
  assert contract[0] == ('success', 'stops')


def test_the_image_is_pinned_and_python_is_process_1():
  lines = (_LAUNCH / 'Dockerfile').read_text('utf-8').splitlines()
  words = [line.split(maxsplit=1) for line in lines if line[:1].isupper()]
  instructions = [(word, rest) for word, rest in words]
  # BASE has no default: every build names its base, and only by digest.
  assert instructions[:2] == [('ARG', 'BASE'), ('FROM', '${BASE}')]
  assert [rest for word, rest in instructions if word == 'FROM'] == ['${BASE}']
  assert any(
      word == 'RUN' and '*@sha256:*)' in rest for word, rest in instructions
  )
  (entry,) = [rest for word, rest in instructions if word == 'ENTRYPOINT']
  assert json.loads(entry) == ['python']
  (command,) = [rest for word, rest in instructions if word == 'CMD']
  assert json.loads(command)[:2] == ['-m', 'jumprelu.run.main']
  assert 'latest' not in '\n'.join(lines)
  (user,) = [i for i, line in enumerate(lines) if line.startswith('USER')]
  assert lines[user] != 'USER root' or lines[user - 1].startswith('#')
  for word, rest in instructions:
    if word == 'COPY':
      for name in rest.split()[:-1]:
        assert (_LAUNCH.parent / name).exists(), name


@pytest.mark.parametrize('base, code', [('a:1', 1), ('a@sha256:0', 0), ('', 1)])
def test_a_base_without_digest_ends_the_build(base, code):
  text = (_LAUNCH / 'Dockerfile').read_text('utf-8')
  (check,) = re.findall(r'^RUN (case .*)$', text, re.MULTILINE)
  done = subprocess.run(
      ['/bin/sh', '-c', check],
      env={'BASE': base},
      capture_output=True,
      timeout=60,
      check=False,
  )
  assert done.returncode == code


def test_the_runs_mount_the_disk():
  text = (_LAUNCH / 'volume.yaml').read_text('utf-8')
  claim, files = yaml.safe_load_all(text)
  assert claim['spec']['accessModes'] == ['ReadWriteMany']
  assert f'--volumes={claim["metadata"]["name"]}:/mnt/scope' in _README
  pod = files['spec']['template']['spec']
  assert pod['volumes'][0]['persistentVolumeClaim'] == {
      'claimName': claim['metadata']['name']
  }
  assert pod['containers'][0]['volumeMounts'][0]['mountPath'] == '/mnt/scope'
