"""A missing library is named with the extra that installs it."""

import ast
import importlib.util
import pathlib
import runpy
import subprocess
import sys

import pytest
import setuptools

from jumprelu import errors, extras
from jumprelu.run import main
from tests import core_use

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_MODULES = {
    module: extra for extra, parts in extras.EXTRAS.items() for module in parts
}


def _setup(monkeypatch) -> dict:
  """Returns the arguments of setup.py's call to setuptools."""
  calls = []
  monkeypatch.setattr(
      setuptools, 'setup', lambda **kwargs: calls.append(kwargs)
  )
  runpy.run_path(str(_ROOT / 'setup.py'))
  return calls[0]


def _distribution(requirement: str) -> str:
  for end, letter in enumerate(requirement):
    if not (letter.isalnum() or letter in '-_.'):
      return requirement[:end]
  return requirement


def test_each_library_is_installed_by_the_extra_in_its_message(monkeypatch):
  setup = _setup(monkeypatch)
  core = set(map(_distribution, setup['install_requires']))
  for extra, parts in extras.EXTRAS.items():
    installed = set(map(_distribution, setup['extras_require'][extra]))
    assert set(parts.values()) <= installed
    assert core.isdisjoint(parts.values())


def test_every_extra_includes_the_extra_train(monkeypatch):
  requires = _setup(monkeypatch)['extras_require']
  for extra, requirements in requires.items():
    assert set(requires['train']) <= set(requirements), extra


def _unguarded(node: ast.AST) -> list[str]:
  """Returns the modules of extras that are imported outside `imports`."""
  if isinstance(node, ast.With):
    managers = [ast.unparse(item.context_expr) for item in node.items]
    if 'extras.imports()' in managers:
      return []
  names = []
  if isinstance(node, ast.Import):
    names = [alias.name for alias in node.names]
  elif isinstance(node, ast.ImportFrom):
    names = [node.module or '']
  roots = [name.partition('.')[0] for name in names]
  outside = [root for root in roots if root in _MODULES]
  for child in ast.iter_child_nodes(node):
    outside += _unguarded(child)
  return outside


def test_every_import_of_an_extra_is_guarded():
  offenders = {
      path.name: modules
      for path in (_ROOT / 'jumprelu').rglob('*.py')
      if (modules := _unguarded(ast.parse(path.read_text('utf-8'))))
  }
  assert not offenders


def test_an_import_names_the_distribution_and_its_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'orbax', None)
  with pytest.raises(ModuleNotFoundError) as raised:
    with extras.imports():
      import orbax.checkpoint  # noqa: F401
  assert (
      str(raised.value)
      == "needs orbax-checkpoint; pip install 'jumprelu[train]'"
  )
  assert raised.value.name == 'orbax'
  assert isinstance(raised.value, errors.UserError)
  assert raised.value.exit_code == 2


def test_a_missing_module_of_no_extra_raises_the_usual_error(monkeypatch):
  monkeypatch.setitem(sys.modules, 'colorsys', None)
  with pytest.raises(ModuleNotFoundError) as raised:
    with extras.imports():
      import colorsys  # noqa: F401
  assert not isinstance(raised.value, errors.UserError)


# Makes the modules of all extras missing, so that only the core is importable.
_CORE_ONLY = f"""
import sys
for name in {sorted({*_MODULES, 'kauldron', 'optax'})}:
  sys.modules[name] = None
from jumprelu.run import main
"""


def _run(code: str) -> subprocess.CompletedProcess:
  return subprocess.run(
      [sys.executable, '-c', _CORE_ONLY + code],
      capture_output=True,
      text=True,
      timeout=120,
      check=False,
  )


@pytest.mark.parametrize('name', main.COMMANDS)
def test_every_command_has_help_without_extras(name):
  done = _run(f'sys.exit(main.main([{name!r}, "--help"]))')
  assert done.returncode == 0, done.stderr
  assert f'usage: jumprelu {name}' in done.stdout


@pytest.mark.parametrize(
    'argv',
    [
        ['train', '--out={out}'],
        ['train'],
        ['demo', '--out={out}'],
        ['evaluate', '--release={out}', '--out={out}.jsonl'],
        ['release', '--run={out}', '--out={out}2'],
        ['harvest', '--layer=2', '--text={out}', '--out={out}.npz'],
        ['status', '{out}'],
    ],
    ids=' '.join,
)
def test_a_command_without_its_extra_ends_in_one_line(argv, tmp_path):
  argv = [text.format(out=tmp_path / 'out') for text in argv]
  done = _run(f'sys.exit(main.main({argv}))')
  assert done.returncode == 2
  assert done.stderr.startswith(f'jumprelu {argv[0]}: needs ')
  assert done.stderr.endswith("; pip install 'jumprelu[train]'\n")
  assert done.stderr.count('\n') == 1 and not done.stdout
  assert not list(tmp_path.iterdir())


def test_a_single_missing_library_is_named(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'tensorstore', None)
  assert importlib.util.find_spec('tensorstore') is None
  assert main.main(['train']) == 2
  assert capsys.readouterr().err == (
      "jumprelu train: needs tensorstore; pip install 'jumprelu[train]'\n"
  )


@pytest.mark.parametrize(
    'code',
    [
        'from jumprelu import evals, lm, metrics, saes, sharding',
        'from jumprelu.activations import blocks, stream',
        'from jumprelu.evals import evaluate, measures',
        'from jumprelu.planning import plan',
        'from jumprelu.release import formats, members, verify, write',
        'from jumprelu.training import config, optim, step, suite',
        'from jumprelu import release; release.load_member',
        'assert not main.main(["plan", "--model=gemma2_2b", "--layer=12"])',
    ],
)
def test_the_core_needs_no_extra(code):
  done = _run(code)
  assert done.returncode == 0, done.stderr


def test_saes_are_loaded_used_and_verified_without_extras(tmp_path):
  core_use.write(tmp_path)
  done = _run(f"""
import pathlib
sys.path.insert(0, {str(_ROOT)!r})
from tests import core_use
core_use.use(pathlib.Path({str(tmp_path)!r}))
""")
  assert done.returncode == 0, done.stderr
  assert '3 members' in done.stdout
