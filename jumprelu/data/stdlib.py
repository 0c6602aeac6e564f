"""The source code of Python's standard library: text that every machine has.

The parts that differ between distributions are left out: site-packages, tests,
idlelib, lib2to3, ensurepip, and the files that describe the build. With
--data=python, the installed sources of jax, flax, optax and numpy are added.
"""

from collections.abc import Iterator
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import sysconfig
import tokenize
from typing import Any

from jumprelu.data.documents import Document, sha256
from jumprelu.errors import MissingInputError

_LEFT_OUT = frozenset(
    (
        'site-packages',
        'dist-packages',
        'test',
        'tests',
        'idlelib',
        'lib2to3',
        'ensurepip',
        '__pycache__',
    )
)
# Files written when Python is built, which name directories of the build
# machine.
_LEFT_OUT_PREFIXES = ('_sysconfigdata', 'config-')
_PACKAGES = ('jax', 'flax', 'optax', 'numpy')


def _is_left_out(parts: tuple[str, ...]) -> bool:
  return any(p in _LEFT_OUT or p.startswith(_LEFT_OUT_PREFIXES) for p in parts)


def list_modules(root: pathlib.Path) -> list[str]:
  """Returns the sorted module paths below `root`, such as json/decoder.py."""
  modules = []
  for folder, folders, files in os.walk(root):
    # `os.walk` skips the removed folders, for example site-packages.
    folders[:] = [name for name in folders if not _is_left_out((name,))]
    place = pathlib.Path(folder).relative_to(root)
    modules += [
        (place / name).as_posix()
        for name in files
        if name.endswith('.py') and not _is_left_out((name,))
    ]
  return sorted(modules)


class StandardLibrary:
  """A source of one document per module, split by a hash of the path."""

  def __init__(self, *, packages: bool = False, root: str = ''):
    self.name = 'python' if packages else 'stdlib'
    self._roots = [('', pathlib.Path(root or sysconfig.get_path('stdlib')))]
    self._packages = _PACKAGES if packages else ()
    for package in self._packages:
      spec = importlib.util.find_spec(package)
      if spec is None or spec.origin is None:
        raise MissingInputError(
            f'package {package}: not installed; install it, or use'
            ' --data=stdlib'
        )
      self._roots.append((package + '/', pathlib.Path(spec.origin).parent))

  @functools.cached_property
  def _read(self) -> tuple[list[Document], dict[str, int]]:
    documents = []
    skipped = {'undecodable': 0, 'empty': 0, 'duplicate': 0}
    seen = set()
    for prefix, root in self._roots:
      for module in list_modules(root):
        try:
          with tokenize.open(root / module) as file:
            text = file.read()
        except (SyntaxError, UnicodeDecodeError):
          skipped['undecodable'] += 1
          continue
        key = sha256(text)
        if not text.strip():
          skipped['empty'] += 1
        elif key in seen:
          # A copy in the other split would leak held-out text into training.
          skipped['duplicate'] += 1
        else:
          seen.add(key)
          documents.append(Document(prefix + module, text))
    if not documents:
      raise MissingInputError(
          f'{self._roots[0][1]}: no Python source in this folder; set --data'
          ' to a directory of text'
      )
    return documents, skipped

  def documents(self) -> Iterator[Document]:
    """Yields the modules in the order of their paths, packages last."""
    return iter(self._read[0])

  def describe(self) -> dict[str, Any]:
    """Returns the version of Python, counts, and a digest of all texts."""
    documents, skipped = self._read
    digest = hashlib.sha256()
    for name, text in documents:
      digest.update(f'{name}\0{sha256(text)}\n'.encode())
    versions = {p: importlib.metadata.version(p) for p in self._packages}
    return {
        'kind': self.name,
        'python': platform.python_version(),
        **versions,
        'documents': len(documents),
        'characters': sum(len(d.text) for d in documents),
        'skipped': skipped,
        'digest': digest.hexdigest(),
    }

  def split_key(self, document: Document) -> str:
    """Returns the module path, dotted: `json.decoder`."""
    return document.name.removesuffix('.py').replace('/', '.')

  def size(self) -> int:
    """Returns the number of characters; nearly all of them are one byte."""
    return sum(len(d.text) for d in self._read[0])

  def summary(self) -> str:
    """Returns the name; sizes are unknown before the text is read."""
    return ' and '.join(
        [f"{self.name}, the source of Python's standard library"]
        + [f'of {", ".join(self._packages)}'] * bool(self._packages)
    )
