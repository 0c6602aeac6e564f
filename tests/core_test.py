"""The core without extras, installed by pip into a new environment.

JUMPRELU_PYTHONS names the interpreters, separated by ':'. By default, the
interpreter of the tests is used.
"""

import dataclasses
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import pytest

from tests import core_use

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PYTHONS = os.environ.get('JUMPRELU_PYTHONS', sys.executable).split(os.pathsep)

# Limits of an installation, including pip.
_DISTRIBUTIONS = 40
_BYTES = 700e6
_SECONDS = 60

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class _Core:
  """An environment with the installed core."""

  bin: pathlib.Path
  wall_seconds: float
  # CPU time of pip and the compiler, independent of the machine's load.
  cpu_seconds: float

  def run(self, program, *args, check=True) -> subprocess.CompletedProcess:
    dropped = ('PYTHONPATH', 'XLA_FLAGS', 'VIRTUAL_ENV')
    return subprocess.run(
        [self.bin / program, *args],
        cwd=self.bin.parent,
        env={k: v for k, v in os.environ.items() if k not in dropped},
        check=check,
        capture_output=True,
        text=True,
    )


def _cpu_seconds() -> float:
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope='module', params=_PYTHONS)
def core(request, tmp_path_factory):
  """Installs a copy of the checkout without extras."""
  place = tmp_path_factory.mktemp('core')
  ignored = shutil.ignore_patterns('*.so', '.git', 'build', '*.egg-info')
  shutil.copytree(_ROOT, place / 'source', ignore=ignored)
  subprocess.run([request.param, '-m', 'venv', place / 'venv'], check=True)
  installed = _Core(place / 'venv/bin', 0, 0)
  start, cpu = time.monotonic(), _cpu_seconds()
  installed.run('pip', 'install', str(place / 'source'))
  yield _Core(installed.bin, time.monotonic() - start, _cpu_seconds() - cpu)
  shutil.rmtree(place)


def test_the_core_is_small_and_quick_to_install(core):
  distributions = core.run('pip', 'list', '--format=freeze').stdout.split()
  files = (core.bin.parent / 'lib').rglob('*')
  size = sum(p.lstat().st_size for p in files if p.is_file())
  print(
      f'{len(distributions)} distributions, {size / 1e6:.0f} MB, installed in'
      f' {core.wall_seconds:.0f} s ({core.cpu_seconds:.0f} s of CPU, wheels'
      ' perhaps cached)'
  )
  assert len(distributions) <= _DISTRIBUTIONS, distributions
  assert size <= _BYTES
  assert core.cpu_seconds <= _SECONDS


def test_the_core_loads_encodes_and_verifies(core, tmp_path):
  core_use.write(tmp_path)
  # The program is copied, because Python imports from a script's folder first.
  program = shutil.copy(core_use.__file__, tmp_path)
  used = core.run('python', program, str(tmp_path)).stdout
  assert f'jumprelu is {core.bin.parent}' in used
  verified = core.run('jumprelu', 'verify', str(tmp_path / 'release')).stdout
  assert '3 members' in verified


def test_a_command_of_an_extra_names_it(core, tmp_path):
  out = tmp_path / 'run'
  done = core.run('jumprelu', 'train', f'--out={out}', check=False)
  assert done.returncode == 2
  assert done.stderr.startswith('jumprelu train: needs ')
  assert done.stderr.endswith("; pip install 'jumprelu[train]'\n")
  assert not out.exists()
