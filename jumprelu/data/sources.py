"""The source of documents that a value of --data names."""

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

__all__ = [
    'Document',
    'Source',
    'Split',
    'is_held_out',
    'make_source',
    'make_split',
]


def make_source(spec: str, config: Config | None = None) -> Source:
  """Returns the source of documents that `spec` names.

  `stdlib` is the source code of Python's standard library, and `python` adds
  that of jax, flax, optax and numpy. `tfds:NAME[/CONFIG]` is a prepared TFDS
  set. Any other value is a list of files and directories, separated by commas.
  `tokens:DIR` is not a source, because it contains no text; `prepare` reads it.
  """
  config = config or Config()
  if spec in ('stdlib', 'python'):
    return StandardLibrary(packages=spec == 'python')
  if spec.startswith('tfds:'):
    return TfdsSet(
        spec.removeprefix('tfds:'),
        data_dir=config.data_dir,
        split=config.tfds_split,
        text_field=config.text_field,
    )
  paths = [p for p in spec.split(',') if p]
  if not paths:
    raise UserError('--data is empty: name a corpus, for example stdlib')
  return TextFiles(paths, text_field=config.text_field)
