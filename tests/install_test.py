"""The tests test what is installed, and that is this checkout's code."""

from importlib import metadata
import json
import os
import pathlib

import pytest

import jumprelu

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_IMPORTED = pathlib.Path(jumprelu.__file__).resolve().parent


def _from_the_checkout_on_purpose() -> bool:
  """Whether the checkout was put on the path, or installed as editable."""
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
  # Data files too: the embedded language model must be there.
  installed, source = _contents(_IMPORTED), _contents(_ROOT / 'jumprelu')
  assert sorted(installed) == sorted(source)
  stale = [name for name in source if installed[name] != source[name]]
  assert not stale, "install again: pip install '.[test]'"


def test_the_version_is_the_packages():
  assert metadata.version('jumprelu') == jumprelu.__version__


def test_the_console_script_is_installed():
  scripts = metadata.entry_points(group='console_scripts', name='jumprelu')
  assert {script.value for script in scripts} == {'jumprelu.run.main:main'}
