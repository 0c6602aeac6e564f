"""Rooms import downwards, each concern is in one room, and files are short."""

import ast
import graphlib
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGE = _ROOT / 'jumprelu'

# Rooms and root modules, from the lowest floor to the highest. Each imports
# only from earlier lines; names on the same line do not import each other.
FLOORS = (
    ('errors', 'array_typing'),
    ('extras',),
    ('processes',),
    ('sharding',),
    ('metrics',),
    ('files',),
    ('ops', 'plots'),
    ('data', 'lm', 'saes'),
    ('activations',),
    ('evals',),
    ('training',),
    ('planning', 'release'),
    ('features',),
    ('api',),
    ('explain', 'explore'),
    ('run',),
)
_FLOOR_OF = {name: n for n, names in enumerate(FLOORS) for name in names}

# These are imported only inside functions, because their import is slow or has
# side effects.
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
  return sorted(p for f in folders for p in (_ROOT / f).rglob('*.py'))


def _name(path: pathlib.Path) -> str:
  return str(path.relative_to(_ROOT))


def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text('utf-8'))


def _module(path: pathlib.Path) -> str:
  parts = path.relative_to(_ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def _imports(tree: ast.AST) -> list[str]:
  """Returns the imported modules; `from a import b` counts as `a.b`."""
  names = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'relative import'
      names += [f'{node.module}.{alias.name}' for alias in node.names]
  return names


def _room(module: str) -> str:
  """Returns the room of a module: `jumprelu.saes.base` -> `saes`."""
  return (module.split('.') + [''])[1]


_SOURCES = _files('jumprelu')
_EVERYTHING = _files('jumprelu', 'experiments', 'launch', 'tests')


def test_every_room_has_a_floor_and_every_floor_a_room():
  assert {_room(_module(path)) for path in _SOURCES} - {''} == set(_FLOOR_OF)


def test_rooms_import_downwards_only():
  offenders = []
  for path in _SOURCES:
    room = _room(_module(path))
    for imported in _imports(_tree(path)) if room else ():
      package, other = imported.partition('.')[0], _room(imported)
      if package in ('experiments', 'launch', 'tests'):
        offenders.append(f'{_name(path)} imports {imported}')
      if package != 'jumprelu' or other in (room, '', '__version__'):
        continue
      if _FLOOR_OF[other] >= _FLOOR_OF[room]:
        offenders.append(f'{_name(path)} imports {imported}')
  assert not offenders


def test_no_import_is_circular():
  modules = {_module(path): path for path in _SOURCES}
  graph = {}
  for module, path in modules.items():
    graph[module] = set()
    for imported in _imports(_tree(path)):
      # `from a import b` imports the module a.b, or a name from the module a.
      for target in (imported, imported.rpartition('.')[0]):
        if target in modules:
          # A module may import from the __init__ of its package.
          if target != module and not module.startswith(target + '.'):
            graph[module].add(target)
          break
  graphlib.TopologicalSorter(graph).prepare()


def test_only_sharding_names_a_partition_spec():
  offenders = []
  for path in _SOURCES:
    for node in ast.walk(_tree(path)):
      words = [getattr(node, name, '') for name in ('id', 'attr', 'name')]
      if 'PartitionSpec' in words and _name(path) != 'jumprelu/sharding.py':
        offenders.append(f'{_name(path)}:{node.lineno}')
  assert not offenders


def test_only_one_module_imports_gemma():
  offenders = [
      _name(path)
      for path in _SOURCES
      for module in _imports(_tree(path))
      if module.partition('.')[0] in ('gemma', 'kauldron')
  ]
  assert set(offenders) == {'jumprelu/lm/gemma.py'}


def test_heavy_libraries_are_imported_inside_functions():
  kinds = (ast.Import, ast.ImportFrom, ast.If, ast.Try)
  offenders = [
      f'{_name(path)} imports {module}'
      for path in _SOURCES
      for node in _tree(path).body
      if isinstance(node, kinds)
      for module in _imports(node)
      if module.partition('.')[0] in _HEAVY
  ]
  assert not offenders


def test_no_file_is_a_drawer():
  drawers = ('utils', 'util', 'common', 'helpers', 'misc')
  assert not [_name(path) for path in _EVERYTHING if path.stem in drawers]


def test_files_and_functions_are_short():
  offenders = []
  for path in _EVERYTHING:
    text = path.read_text('utf-8')
    if (count := len(text.splitlines())) > 400:
      offenders.append(f'{_name(path)} has {count} lines')
    for node in ast.walk(ast.parse(text)):
      if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        continue
      where = f'{_name(path)}: {node.name}'
      if (lines := node.end_lineno - node.lineno + 1) > 60:
        offenders.append(f'{where} has {lines} lines')
      if (n := len(node.args.args) + len(node.args.posonlyargs)) > 6:
        offenders.append(f'{where} has {n} positional arguments')
  assert not offenders


def test_no_file_switches_its_checks_off():
  comments = ('# ruff: ', '# pyright: ', '# pylint: ', '# mypy: ')
  offenders = [
      f'{_name(path)}:{number}'
      for path in _EVERYTHING
      for number, line in enumerate(path.read_text('utf-8').splitlines(), 1)
      if line.strip().startswith(comments) or line.strip() == '# type: ignore'
  ]
  assert not offenders


def test_no_import_is_for_the_type_checker_only():
  offenders = [
      _name(path)
      for path in _SOURCES
      for node in ast.walk(_tree(path))
      if getattr(node, 'id', '') == 'TYPE_CHECKING'
  ]
  assert not offenders
