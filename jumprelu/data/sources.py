"""The source of documents that a value of --data names."""

import pathlib
from typing import Any

from jumprelu.data.config import Config
from jumprelu.data.documents import (
    Document,
    Source,
    Split,
    is_held_out,
    make_split,
)
from jumprelu.data.stdlib import StandardLibrary
from jumprelu.data.text_files import TextFiles
from jumprelu.data.tfds_set import TfdsSet
from jumprelu.errors import UserError

# Text has fewer bytes per token with every known tokenizer.
_MOST_BYTES_PER_TOKEN = 8

__all__ = [
    'Document',
    'Source',
    'Split',
    'is_held_out',
    'is_local',
    'least_bytes',
    'make_source',
    'make_split',
    'split_paths',
]


# The names of texts that come with Python and with packages.
_INSTALLED = ('stdlib', 'python')


def make_source(spec: str, config: Config | None = None) -> Source:
  """Returns the source of documents that `spec` names.

  `stdlib` is the source code of Python's standard library, and `python` adds
  that of jax, flax, optax and numpy. `tfds:NAME[/CONFIG]` is a prepared TFDS
  set. Any other value is a list of files and directories, separated by commas.
  `tokens:DIR` is not a source, because it contains no text; `prepare` reads it.
  """
  config = config or Config()
  if spec in _INSTALLED:
    return StandardLibrary(packages=spec == 'python')
  if spec.startswith('tfds:'):
    return TfdsSet(
        spec.removeprefix('tfds:'),
        data_dir=config.data_dir,
        split=config.tfds_split,
        text_field=config.text_field,
        max_bad_rows=config.max_bad_rows,
    )
  paths = split_paths(spec)
  if not paths:
    raise UserError('--data is empty: name a corpus, for example stdlib')
  return TextFiles(
      paths,
      text_field=config.text_field,
      max_bad_rows=config.max_bad_rows,
      cache_dir=config.cache_dir,
  )


def is_local(spec: str) -> bool:
  """Returns whether a value of --data is a list of local paths."""
  return spec not in _INSTALLED and not spec.startswith('tfds:')


def split_paths(spec: str) -> list[str]:
  """Returns the paths in a list separated by commas.

  A path with commas in it is kept if it exists. White space around a path is
  removed unless it is part of an existing path.
  """
  parts, paths = spec.split(','), []
  while parts:
    count = next(
        (n for n in range(len(parts), 1, -1) if _exists(','.join(parts[:n]))), 1
    )
    path, parts = ','.join(parts[:count]), parts[count:]
    paths.append(path if _exists(path) else path.strip())
  return [path for path in paths if path]


def _exists(path: str) -> bool:
  try:
    return bool(path) and pathlib.Path(path).expanduser().exists()
  except (OSError, RuntimeError, ValueError):
    return False  # Such as a name that is too long or has a null byte.


def least_bytes(source: Any, config: Config, *, vocab_size: int) -> int:
  """Returns a lower bound of the bytes of a source's token caches.

  Args:
    source: The source; the bound is 0 if its size is unknown.
    config: The config of the corpus.
    vocab_size: The size of the vocabulary.
  """
  size = getattr(source, 'size', int)()  # Tokenised text has no size.
  tokens = size // _MOST_BYTES_PER_TOKEN
  if config.max_tokens:
    tokens = min(tokens, config.max_tokens)
  return tokens * (2 if vocab_size <= 2**16 else 4)
