"""Evaluation texts that every installation has and no suite was trained on.

Suites at scale `nano` and their language model are trained on the training
documents of the standard library. The texts of this module come from the
library's held-out documents or from files of other packages. Documents that are
equal to a training document are skipped.
"""

from collections.abc import Iterator
import importlib.metadata
import importlib.util
import json
import pathlib
import random

from experiments.nano import chats, made

# Share of the standard library that is held out: the default of
# `corpus.held_out_percent`.
_HELD_OUT_PERCENT = 10
# Characters of a piece, and the largest number of pieces of one document, so
# that a text contains many documents.
_PIECE, _PIECES = 2000, 4


def needed(name: str, amount: int) -> made.Made:
  """Returns a reference to a text of about `amount` characters or fewer."""
  return made.Made('text', name, amount, stands_for='stdlib')


def write(name: str, folder: pathlib.Path, amount: int) -> None:
  """Writes random pieces of a text's documents as JSON lines."""
  seen = _train_documents()
  rng = random.Random(name)
  left = amount
  with (folder / 'text.jsonl').open('w', encoding='utf-8') as file:
    for document in TEXTS[name]():
      if document in seen:
        continue
      pieces = make_pieces(document)
      for text in rng.sample(pieces, min(_PIECES, len(pieces))):
        if left > 0:
          file.write(json.dumps({'text': text}) + '\n')
        left -= len(text)
      if left <= 0:
        break


def make_pieces(text: str) -> list[str]:
  """Returns the pieces of a text: whole lines, without blank pieces."""
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
  """Returns the training documents and the held-out documents."""
  from jumprelu.data import sources

  source = sources.make_source('stdlib')
  split = sources.make_split(source, _HELD_OUT_PERCENT)
  train, held_out = [], []
  for document in source.documents():
    hold = split.holds_out(source.split_key(document))
    (held_out if hold else train).append(document)
  return train, held_out


def _files(package: str, suffix: str) -> Iterator[str]:
  """Yields the texts of a package's files with a suffix, in random order."""
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
  """Yields one document per module: all its docstrings."""
  import ast

  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
  for text in _files(package, '.py'):
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, kinds)]
    docstrings = [ast.get_docstring(node) for node in nodes]
    yield '\n\n'.join(filter(None, docstrings))


def _descriptions() -> Iterator[str]:
  """Yields the descriptions of the distributions in `_DISTRIBUTIONS`."""
  for name in _DISTRIBUTIONS:
    fields = importlib.metadata.metadata(name)
    yield fields.get('Description') or str(fields.get_payload() or '')


def _chats() -> Iterator[str]:
  """Yields chats about held-out modules, in random order."""
  _, held_out = standard_library()
  texts = list(chats.about(held_out))
  yield from random.Random(0).sample(texts, len(texts))


# Dependencies in setup.py that have a description in Markdown or
# reStructuredText.
_DISTRIBUTIONS = (
    'sentencepiece', 'jax', 'flax', 'optax', 'numpy', 'scipy', 'matplotlib',
    'gemma', 'grain', 'absl-py', 'jaxtyping', 'tensorstore',
    'tensorflow-datasets', 'tensorflow', 'kauldron', 'orbax-checkpoint',
    'array-record', 'ml_dtypes', 'safetensors', 'pyarrow', 'python-dateutil',
)  # fmt: skip

# Generators of documents, by the name of the text.
TEXTS = {
    'chats': _chats,
    'jax': lambda: _files('jax', '.py'),
    'docstrings': lambda: _docstrings('numpy'),
    'stubs': lambda: _files('numpy', '.pyi'),
    'descriptions': _descriptions,
    'headers': lambda: _files('numpy', '.h'),
}
