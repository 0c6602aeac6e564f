"""The shape of the house: layers, one place for each concern, small files."""

import ast
import graphlib
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGE = _ROOT / 'jumprelu'

# A module or package of `jumprelu` -> its layer. Imports go downwards, or
# stay within the layer as long as they make no cycle.
_LAYERS = {
    0: (
        'array_typing',
        'digests',
        'dotted',
        'errors',
        'folders',
        'hlo',
        'ops',
    ),
    1: ('agreement', 'metrics', 'sharding'),
    # Three towers: none imports another.
    2: ('data', 'lm', 'saes'),
    3: (
        'blocks',
        'checkpoint',
        'evals',
        'loops',
        'optim',
        'paths',
        'step',
        'store',
        'stream',
        'suite',
    ),
    4: ('coefficients', 'config', 'recipes', 'validation'),
    5: (
        'abstract_job',
        'card',
        'chips',
        'costs',
        'evaluate',
        'fleet',
        'frontier',
        'harvest',
        'harvest_store',
        'identity',
        'job',
        'layout',
        'members',
        'npz',
        'parity',
        'plan',
        'plan_table',
        'plot_style',
        'progress',
        'publish',
        'records',
        'release',
        'released',
        'run_dir',
        'stored_evaluation',
        'tpu_compile',
        'train',
        'trained',
        'verify',
    ),
    6: ('flags', 'run'),
}
_LAYER_OF = {name: n for n, names in _LAYERS.items() for name in names}
_TOWERS = _LAYERS[2]

# Slow to import, or with side effects: only inside the functions that need
# them.
_HEAVY = (
    'gemma',
    'kauldron',
    'matplotlib',
    'pyarrow',
    'tensorflow',
    'tensorflow_datasets',
    'torch',
    'transformers',
)


def _files(*folders: str) -> list[pathlib.Path]:
  found = [p for f in folders for p in (_ROOT / f).rglob('*.py')]
  return sorted(found)


def _name(path: pathlib.Path) -> str:
  return str(path.relative_to(_ROOT))


def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text('utf-8'))


def _module(path: pathlib.Path) -> str:
  parts = path.relative_to(_ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def _imports(tree: ast.AST) -> list[str]:
  """Every module that is imported; `from a import b` may mean `a.b`."""
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'relative import'
      found += [f'{node.module}.{alias.name}' for alias in node.names]
  return found


def _part(module: str) -> str:
  """`jumprelu.saes.base` -> `saes`."""
  return (module.split('.') + [''])[1]


_SOURCES = _files('jumprelu')
_EVERYTHING = _files('jumprelu', 'experiments', 'launch', 'tests')
_by_name = pytest.mark.parametrize('path', _SOURCES, ids=_name)
_all_by_name = pytest.mark.parametrize('path', _EVERYTHING, ids=_name)


def test_every_module_has_a_layer():
  parts = {_part(_module(path)) for path in _SOURCES} - {''}
  assert parts <= set(_LAYER_OF), 'give it a row in _LAYERS'


@_by_name
def test_imports_go_downwards(path):
  own = _part(_module(path))
  if not own:
    return
  for imported in _imports(_tree(path)):
    package, _, _ = imported.partition('.')
    assert package not in ('experiments', 'launch', 'tests'), imported
    other = _part(imported)
    if package != 'jumprelu' or other in (own, '', '__version__'):
      continue
    assert _LAYER_OF[other] <= _LAYER_OF[own], f'{own} imports {other} above it'
    towers = own in _TOWERS and other in _TOWERS
    assert not towers, f'tower {own} imports tower {other}'


def test_no_module_imports_itself_by_a_detour():
  modules = {_module(path): path for path in _SOURCES}
  graph = {}
  for module, path in modules.items():
    graph[module] = set()
    for imported in _imports(_tree(path)):
      # `from a import b`: the module a.b, or a name of the module a.
      for target in (imported, imported.rpartition('.')[0]):
        if target in modules:
          # A file of a package does not wait for the package's table of names.
          if target != module and not module.startswith(target + '.'):
            graph[module].add(target)
          break
  graphlib.TopologicalSorter(graph).prepare()


@_by_name
def test_only_sharding_names_a_partition_spec(path):
  if _name(path) == 'jumprelu/sharding.py':
    return
  for node in ast.walk(_tree(path)):
    words = (
        getattr(node, 'id', ''),
        getattr(node, 'attr', ''),
        getattr(node, 'name', ''),
    )
    assert 'PartitionSpec' not in words


@_by_name
def test_only_one_module_imports_gemma(path):
  roots = {module.partition('.')[0] for module in _imports(_tree(path))}
  if _name(path) != 'jumprelu/lm/gemma.py':
    assert roots.isdisjoint({'gemma', 'kauldron'})


@_by_name
def test_heavy_libraries_are_imported_inside_functions(path):
  body = ast.Module(
      [node for node in _tree(path).body if 'import' in ast.dump(node).lower()],
      [],
  )
  top = [
      node
      for node in body.body
      if isinstance(node, (ast.Import, ast.ImportFrom, ast.If, ast.Try))
  ]
  for node in top:
    for module in _imports(node):
      assert module.partition('.')[0] not in _HEAVY, module


@_all_by_name
def test_no_file_is_a_drawer(path):
  assert path.stem not in ('utils', 'util', 'common', 'helpers', 'misc')


@_all_by_name
def test_files_and_functions_are_short(path):
  text = path.read_text('utf-8')
  assert len(text.splitlines()) <= 300
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      lines = node.end_lineno - node.lineno + 1
      assert lines <= 60, f'{node.name} has {lines} lines'
      count = len(node.args.args) + len(node.args.posonlyargs)
      assert count <= 6, f'{node.name} has {count} positional arguments'


@_all_by_name
def test_no_file_switches_its_checks_off(path):
  for line in path.read_text('utf-8').splitlines():
    comment = line.strip()
    for words in ('# ruff: ', '# pyright: ', '# pylint: ', '# mypy: '):
      assert not comment.startswith(words), comment
    assert comment != '# type: ignore'


@_by_name
def test_no_import_is_for_the_type_checker_only(path):
  names = {getattr(node, 'id', '') for node in ast.walk(_tree(path))}
  assert 'TYPE_CHECKING' not in names
