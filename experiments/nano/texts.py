"""Texts that are on every machine with the package, and that no suite read.

Suites at the scale of `nano` and their language model are trained on the
standard library's train documents; what stands here is either of a document
that was held out from both or of other packages' files, and never equal to a
train document.
"""

from collections.abc import Iterator
import importlib.metadata
import importlib.util
import json
import pathlib
import random

from experiments.nano import chats, made

# Of the standard library, as configs have it.
_HELD_OUT_PERCENT = 10
# Characters of a piece, and how many of one document: a text is of many.
_PIECE, _PIECES = 2000, 4


def needed(name: str, amount: int) -> made.Made:
  """Names a text of about `amount` characters, or all there is."""
  return made.Made('text', name, amount, stands_for='stdlib')


def write(name: str, folder: pathlib.Path, amount: int) -> None:
  """Writes pieces of a text's documents, drawn by chance, as JSON lines."""
  seen = _train_documents()
  rng = random.Random(name)
  left = amount
  with (folder / 'text.jsonl').open('w', encoding='utf-8') as file:
    for document in TEXTS[name]():
      if document in seen:
        continue
      pieces = cut(document)
      for text in rng.sample(pieces, min(_PIECES, len(pieces))):
        if left > 0:
          file.write(json.dumps({'text': text}) + '\n')
        left -= len(text)
      if left <= 0:
        break


def cut(text: str) -> list[str]:
  """Cuts a text into pieces of whole lines, none of them blank."""
  pieces, lines, size = [], [], 0
  for line in text.splitlines(keepends=True):
    lines.append(line)
    size += len(line)
    if size >= _PIECE:
      pieces.append(''.join(lines))
      lines, size = [], 0
  return [piece for piece in [*pieces, ''.join(lines)] if piece.strip()]


def _train_documents() -> set[str]:
  train, _ = standard_library()
  return {document.text for document in train}


def standard_library() -> tuple[list, list]:
  """Returns its documents, those of training and those held out."""
  from jumprelu.data import sources

  source = sources.make_source('stdlib')
  split = sources.make_split(source, _HELD_OUT_PERCENT)
  train, held_out = [], []
  for document in source.documents():
    hold = split.holds_out(source.split_key(document))
    (held_out if hold else train).append(document)
  return train, held_out


def _files(package: str, suffix: str) -> Iterator[str]:
  """Yields the package's files of a kind, in an order of chance."""
  spec = importlib.util.find_spec(package)
  (root,) = spec.submodule_search_locations if spec else ()
  paths = [
      path
      for path in sorted(pathlib.Path(root).rglob(f'*{suffix}'))
      if 'tests' not in path.parts
  ]
  for path in random.Random(0).sample(paths, len(paths)):
    yield path.read_text('utf-8', errors='replace')


def _docstrings(package: str) -> Iterator[str]:
  """Yields each module's docstrings, one after the other."""
  import ast

  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
  for text in _files(package, '.py'):
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, kinds)]
    found = [ast.get_docstring(node) for node in nodes]
    yield '\n\n'.join(filter(None, found))


def _descriptions() -> Iterator[str]:
  """Yields what the distributions that the package needs say of themselves."""
  for name in _DISTRIBUTIONS:
    fields = importlib.metadata.metadata(name)
    yield fields.get('Description') or str(fields.get_payload() or '')


def _chats() -> Iterator[str]:
  """Yields chats about held-out modules, in an order of chance."""
  _, held_out = standard_library()
  found = list(chats.about(held_out))
  yield from random.Random(0).sample(found, len(found))


# Required by setup.py, with descriptions of their own in Markdown or
# reStructuredText.
_DISTRIBUTIONS = (
    'sentencepiece', 'jax', 'flax', 'optax', 'numpy', 'scipy', 'matplotlib',
    'gemma', 'grain', 'absl-py', 'jaxtyping', 'tensorstore',
    'tensorflow-datasets', 'tensorflow', 'kauldron', 'orbax-checkpoint',
    'array-record', 'ml_dtypes', 'safetensors', 'pyarrow', 'python-dateutil',
)  # fmt: skip

# The first is what suites are evaluated on anyway.
TEXTS = {
    'chats': _chats,
    'jax': lambda: _files('jax', '.py'),
    'docstrings': lambda: _docstrings('numpy'),
    'stubs': lambda: _files('numpy', '.pyi'),
    'descriptions': _descriptions,
    'headers': lambda: _files('numpy', '.h'),
}
