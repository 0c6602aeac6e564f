"""Tests of the public names, the README's lines and the API's page."""

import doctest
import inspect
import pathlib
import pickle
import re
import subprocess
import sys
import textwrap

import pytest

from experiments import api_reference
import jumprelu
from tests.api import examples

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _python(code):
  """Returns the output of a fresh interpreter."""
  done = subprocess.run(
      [sys.executable, '-c', textwrap.dedent(code)],
      capture_output=True,
      text=True,
  )
  assert not done.returncode, done.stderr
  return done.stdout.strip()


def test_no_public_name_is_a_rooms():
  package = _ROOT / 'jumprelu'
  rooms = {p.name for p in package.iterdir() if p.is_dir()}
  rooms |= {p.stem for p in package.glob('*.py')}
  assert {'release', 'lm', 'errors'} < rooms
  assert not rooms & set(jumprelu.__all__)


@pytest.mark.parametrize('first', ['names', 'rooms'])
def test_public_names_do_not_change_when_all_rooms_are_imported(first):
  names = """
      values = {name: getattr(jumprelu, name) for name in jumprelu.__all__}
  """
  rooms = """
      # The extension has no Python interface.
      for module in pkgutil.walk_packages(jumprelu.__path__, 'jumprelu.'):
        if not module.name.endswith('._step'):
          importlib.import_module(module.name)
  """
  parts = (names, rooms) if first == 'names' else (rooms, names)
  code = '\n'.join(
      textwrap.dedent(part)
      for part in (
          'import importlib, pkgutil, sys, types, jumprelu',
          *parts,
          """
          for name, value in values.items():
            module, attribute = jumprelu._PUBLIC[name]
            module = sys.modules['jumprelu.' + module]
            assert getattr(jumprelu, name) is value, name
            assert getattr(module, attribute) is value, name
            assert not isinstance(value, types.ModuleType), name
          from jumprelu import lm, release, saes
          assert isinstance(release, types.ModuleType)
          print(len([m for m in sys.modules if m.startswith('jumprelu.')]))
          """,
      )
  )
  assert int(_python(code)) > 150


def test_every_public_name_is_exported_and_listed():
  assert jumprelu.__all__ == sorted(jumprelu._PUBLIC)
  assert set(jumprelu.__all__) <= set(dir(jumprelu))
  code = """
      names = {}
      exec('from jumprelu import *', names)
      import jumprelu
      print(sorted(set(names) - {'__builtins__'}) == jumprelu.__all__)
      print(set(jumprelu.__all__) <= set(dir(jumprelu)))
  """
  assert _python(code) == 'True\nTrue'


def test_functions_and_classes_are_pickled_by_their_names():
  for name in jumprelu.__all__:
    value = getattr(jumprelu, name)
    if callable(value):
      assert pickle.loads(pickle.dumps(value)) is value


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'jumprelu' has no attribute 'no_s"):
    jumprelu.__getattr__('no_such_name')


def test_importing_the_package_is_fast_and_imports_nothing_else():
  code = """
      import sys, time
      before, start = set(sys.modules), time.process_time()
      import jumprelu
      dir(jumprelu)
      seconds = time.process_time() - start
      tops = {m.partition('.')[0] for m in set(sys.modules) - before}
      print(sorted(tops - sys.stdlib_module_names), seconds < 0.3)
  """
  assert _python(code) == "['jumprelu'] True"


def test_the_page_of_the_api_is_that_of_the_docstrings():
  page = (_ROOT / 'docs' / 'api.md').read_text('utf-8')
  assert page == api_reference.render(), 'python -m experiments.api_reference'


@pytest.fixture(scope='module')
def namespace(workplace):
  """Returns the names that the first example defines."""
  names = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(workplace)
    test = doctest.DocTestParser().get_doctest(
        jumprelu.__doc__, names, 'jumprelu', None, 0
    )
    doctest.DocTestRunner().run(test, clear_globs=False)
    names = test.globs
  assert {'jumprelu', 'suite', 'sae', 'lm', 'acts'} <= set(names)
  return names


# Their examples run in commands_test.py.
_COMMANDS = (
    *('train_suite', 'read_metrics', 'write_release', 'evaluate_suite'),
    *('collect_features', 'verify_release'),
)
_EXAMPLES = {
    name
    for name, text in examples.docstrings().items()
    if '>>>' in text and name not in _COMMANDS
}


def test_every_function_and_method_of_the_api_has_an_example():
  texts = examples.docstrings()
  names = set(jumprelu.__all__) - {'SITES', 'VARIANTS', 'Site', 'Tap'}
  for kind in (jumprelu.SAE, jumprelu.Suite, jumprelu.LanguageModel):
    names |= {
        f'{kind.__name__}.{name}'
        for name, member in api_reference.members(kind)
        if inspect.isfunction(member) and name != 'to_raw'
    }
  assert len(names) > 25
  assert not [name for name in sorted(names) if '>>>' not in texts[name]]


@pytest.mark.parametrize('name', sorted(_EXAMPLES))
def test_the_examples_of_the_docstrings_run(
    name, namespace, workplace, monkeypatch
):
  monkeypatch.chdir(workplace)
  assert examples.run(name, namespace)


def test_the_lines_of_the_readme_run(workplace, monkeypatch, capsys):
  text = (_ROOT / 'README.md').read_text('utf-8')
  (code,) = re.findall(r'```python\n(import jumprelu\n.*?)```', text, re.DOTALL)
  monkeypatch.chdir(workplace)
  # Fewer tokens than by default, to save time.
  code, count = re.subn(r'(sae\.latent\(\d+)\)', r'\1, tokens=10_000)', code)
  assert count == 1
  exec(compile(code, 'README.md', 'exec'), {})
  shown = capsys.readouterr().out
  assert "'with'    0: 10.2" in shown and 'promotes' in shown
  assert "Attribution of 'read'" in shown and 'def ' in shown
