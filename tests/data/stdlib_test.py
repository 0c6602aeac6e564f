"""The modules that are read, in a small imitation of the standard library."""

import hashlib
import pathlib
import sysconfig

import pytest

from jumprelu.data import stdlib
from jumprelu.errors import MissingInputError


def _write(root, path, content=b'x = 1\n'):
  file = root / path
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_bytes(content)


@pytest.fixture
def root(tmp_path):
  _write(tmp_path, 'json/decoder.py', b'"""Decode."""\n')
  _write(tmp_path, 'json/__init__.py', b'"""JSON."""\n')
  _write(tmp_path, 'abc.py', '# coding: latin-1\n# caf\xe9\n'.encode('latin-1'))
  _write(tmp_path, 'broken.py', b'x = 1\n' * 9 + b'# caf\xe9\n')
  _write(tmp_path, 'broken_early.py', b'# caf\xe9\n')
  _write(tmp_path, 'odd.py', b'# coding: no-such-coding\n')
  _write(tmp_path, 'empty/__init__.py', b' \n')
  _write(tmp_path, 'zcopy.py', b'"""JSON."""\n')
  for left_out in (
      'site-packages/a.py',
      'dist-packages/a.py',
      'test/a.py',
      'ctypes/test/a.py',
      'unittest/tests/a.py',
      'idlelib/a.py',
      'lib2to3/pgen2/a.py',
      'ensurepip/a.py',
      'json/__pycache__/a.py',
      '_sysconfigdata__linux.py',
      'config-3.11/a.py',
  ):
    _write(tmp_path, left_out)
  _write(tmp_path, 'json/notes.txt')
  return tmp_path


def test_modules_are_listed_in_order_without_excluded_parts(root):
  assert stdlib.list_modules(root) == [
      'abc.py',
      'broken.py',
      'broken_early.py',
      'empty/__init__.py',
      'json/__init__.py',
      'json/decoder.py',
      'odd.py',
      'zcopy.py',
  ]


def test_documents_are_decoded_as_python_does_and_copies_dropped(root):
  source = stdlib.StandardLibrary(root=str(root))
  assert [tuple(d) for d in source.documents()] == [
      ('abc.py', '# coding: latin-1\n# café\n'),
      ('json/__init__.py', '"""JSON."""\n'),
      ('json/decoder.py', '"""Decode."""\n'),
  ]
  assert source.describe()['documents'] == 3
  assert source.describe()['skipped'] == {
      'undecodable': 3,
      'empty': 1,
      'duplicate': 1,
  }


def test_the_module_path_decides_the_split(root):
  source = stdlib.StandardLibrary(root=str(root))
  keys = [source.split_key(d) for d in source.documents()]
  assert keys == ['abc', 'json.__init__', 'json.decoder']


def test_the_digest_depends_on_names_and_texts(root):
  def digest():
    return stdlib.StandardLibrary(root=str(root)).describe()['digest']

  first = digest()
  expected = hashlib.sha256()
  for name, text in (
      ('abc.py', '# coding: latin-1\n# café\n'),
      ('json/__init__.py', '"""JSON."""\n'),
      ('json/decoder.py', '"""Decode."""\n'),
  ):
    text_digest = hashlib.sha256(text.encode()).hexdigest()
    expected.update(f'{name}\0{text_digest}\n'.encode())
  assert first == expected.hexdigest()
  _write(root, 'json/decoder.py', b'"""Decode!"""\n')
  second = digest()
  (root / 'json/decoder.py').rename(root / 'json/encoder.py')
  assert len({first, second, digest()}) == 3


def test_a_root_without_source_is_missing_input(tmp_path):
  with pytest.raises(MissingInputError, match='no Python source'):
    stdlib.StandardLibrary(root=str(tmp_path)).describe()


def test_this_machines_standard_library_has_the_well_known_modules():
  modules = stdlib.list_modules(pathlib.Path(sysconfig.get_path('stdlib')))
  assert {'json/decoder.py', 'os.py', 'asyncio/tasks.py'} <= set(modules)
  assert not [m for m in modules if '/test/' in m or m.startswith('test/')]
  assert not [m for m in modules if 'site-packages' in m]


def test_python_adds_the_four_packages():
  source = stdlib.StandardLibrary(packages=True)
  roots = dict(source._roots)
  assert list(roots) == ['', 'jax/', 'flax/', 'optax/', 'numpy/']
  assert (roots['optax/'] / '__init__.py').is_file()
