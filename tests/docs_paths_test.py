"""Every file, folder, module and link that a document names exists."""

import pathlib
import re

import pytest

import jumprelu
from tests import layering_test

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_DOCUMENTS = sorted(
    path.relative_to(_ROOT).as_posix()
    for folder in ('.', 'docs', 'experiments', 'launch')
    for path in (_ROOT / folder).glob('*.md')
    # The changelog names the files of earlier versions.
    if path.name != 'CHANGELOG.md'
)
_TOP = 'jumprelu|experiments|launch|tests|docs'
# From the root: `tests/saes/small.py`, jumprelu/run/.
_FROM_ROOT = rf'(?<![\w/.=-])(?:{_TOP})/[\w./]*\w'
# From the package or the document's folder: `ops/dense.py`, `run/`.
_IN_BACKTICKS = r'`((?:\w+/)*(?:\w+/|\w+\.(?:py|cc|h)))`'
_MODULE = rf'(?<![\w/.-])(?:{_TOP})(?:\.[a-z_0-9]+)+\b(?!/)'
_LINK = r'\]\(([^):#]+)\)'


def _missing(text: str, folder: pathlib.Path) -> set[str]:
  """Returns the names in a document of `folder` that do not exist.

  NAME and SCALE in a path match any name.
  """
  package = _ROOT / 'jumprelu'
  missing = set()
  for pattern, roots in (
      (_FROM_ROOT, [_ROOT]),
      (_IN_BACKTICKS, [_ROOT, package, folder, *folder.glob('*/')]),
      (_LINK, [folder]),
  ):
    for name in re.findall(pattern, text):
      if not any(_exists(root, name) for root in roots):
        missing.add(name)
  for name in re.findall(_MODULE, text):
    path = name.replace('.', '/')
    public = name.removeprefix('jumprelu.') in jumprelu.__all__
    if not (public or _exists(_ROOT, path) or _exists(_ROOT, path + '.py')):
      missing.add(name)
  return missing


def _exists(root: pathlib.Path, name: str) -> bool:
  glob = re.sub('NAME|SCALE', '*', name)
  return any(root.glob(glob)) if glob != name else (root / name).exists()


@pytest.mark.parametrize('name', _DOCUMENTS)
def test_every_path_of_a_document_exists(name):
  path = _ROOT / name
  assert not _missing(path.read_text('utf-8'), path.parent)


def test_paths_that_do_not_exist_are_reported():
  text = (
      'See `ops/no.py`, `no/`, tests/no_test.py, jumprelu/saes/NAME.py,'
      ' `ops/dense.py` and [this](no.md);\n\n    python -m experiments.no\n'
  )
  assert _missing(text, _ROOT) == {
      'ops/no.py', 'no/', 'tests/no_test.py', 'no.md', 'experiments.no',
  }  # fmt: skip


def test_the_table_of_rooms_is_the_order_that_is_tested():
  text = (_ROOT / 'docs' / 'architecture.md').read_text('utf-8')
  rows = re.findall(r'^\| (\d+) \| (.*?) \|', text, re.MULTILINE)
  floors = {
      int(floor): set(re.findall(r'`(\w+)(?:/|\.py)`', names))
      for floor, names in rows
  }
  assert floors == dict(enumerate(map(set, layering_test.FLOORS)))
