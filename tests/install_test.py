"""The tests run on the installed package, which is this checkout's code."""

from importlib import metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import jumprelu
from jumprelu.ops import native

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_IMPORTED = pathlib.Path(jumprelu.__file__).resolve().parent


def _from_the_checkout_on_purpose() -> bool:
  """Returns whether PYTHONPATH or an editable install uses the checkout."""
  entries = os.environ.get('PYTHONPATH', '').split(os.pathsep)
  if any(pathlib.Path(e).resolve() == _ROOT for e in entries if e):
    return True
  for distribution in metadata.distributions(name='jumprelu'):
    url = json.loads(distribution.read_text('direct_url.json') or '{}')
    if url.get('dir_info', {}).get('editable'):
      return True
  return False


def _contents(package: pathlib.Path) -> dict[str, bytes]:
  return {
      str(path.relative_to(package)): path.read_bytes()
      for path in package.rglob('*')
      if path.is_file() and '__pycache__' not in path.parts
      # The sources of the page's bundle, which is installed.
      and 'web' not in path.relative_to(package).parts and path.suffix != '.so'
  }


@pytest.fixture(autouse=True)
def _needs_an_installation():
  if _from_the_checkout_on_purpose():
    pytest.skip('runs from the checkout, by PYTHONPATH or editable install')


def test_the_imported_package_is_the_installed_distribution():
  located = metadata.distribution('jumprelu').locate_file('jumprelu')
  assert _IMPORTED == pathlib.Path(located).resolve()
  assert _IMPORTED != _ROOT / 'jumprelu', "run `pip install '.[test]'` first"


def test_the_installation_is_complete_and_of_this_checkout():
  # The comparison includes data files, such as the embedded language model.
  installed, source = _contents(_IMPORTED), _contents(_ROOT / 'jumprelu')
  assert sorted(installed) == sorted(source)
  stale = [name for name in source if installed[name] != source[name]]
  assert not stale, "install again: pip install '.[test]'"


def test_the_installed_version_is_that_of_the_package():
  assert metadata.version('jumprelu') == jumprelu.__version__


def test_the_console_script_is_installed():
  scripts = metadata.entry_points(group='console_scripts', name='jumprelu')
  assert {script.value for script in scripts} == {'jumprelu.run.main:main'}


@pytest.mark.skipif(not shutil.which('g++'), reason='no compiler')
def test_the_native_step_is_built_if_a_compiler_is_installed():
  assert native.why_not() == ''


@pytest.mark.skipif(not shutil.which('g++'), reason='no compiler')
def test_code_that_runs_in_the_checkout_uses_the_installed_native_step():
  code = 'from jumprelu.ops import native; print(native.__file__, native.why_not())'
  done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=_ROOT,
      env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
      check=True,
      capture_output=True,
      text=True,
  )
  file, _, why_not = done.stdout.strip().partition(' ')
  assert file.startswith(str(_ROOT)) and why_not == ''


@pytest.mark.slow
def test_the_package_installs_without_a_compiler_and_names_it(tmp_path):
  source = tmp_path / 'source'
  ignored = shutil.ignore_patterns('*.so', '.git', 'build', '*.egg-info')
  shutil.copytree(_ROOT, source, ignore=ignored)
  command = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--target']
  none = {'CC': 'no-compiler', 'CXX': 'no-compiler'}
  subprocess.run(
      [*command, str(tmp_path / 'place'), str(source)],
      env=os.environ | none,
      check=True,
  )
  code = 'from jumprelu.ops import native; print(native.why_not())'
  done = subprocess.run(
      [sys.executable, '-c', code],
      env=os.environ | {'PYTHONPATH': str(tmp_path / 'place')},
      cwd=tmp_path,
      check=True,
      capture_output=True,
      text=True,
  )
  assert 'no C++ compiler' in done.stdout
