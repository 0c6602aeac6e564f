"""Models in GGUF files, which are read tensor by tensor.

A tensor of a GGUF file is a tensor of Hugging Face under another name, and
norms are stored as their gain, 1 + w. The conversions to our tensors are
therefore those of Hugging Face's folders.
"""

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

import numpy as np

from jumprelu import errors, extras
from jumprelu.files import gguf_file, gguf_header
from jumprelu.lm import config as config_lib
from jumprelu.lm import families, weights
from jumprelu.lm.families import gguf_fields

SUFFIX = '.gguf'
_TOKENS = 'tokenizer.ggml.tokens'
# Longer arrays of numbers are not read; there is at most a number per layer.
_MAX_NUMBERS = 1024


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether a folder has GGUF files and no weights of Hugging Face."""
  return any(folder.glob(f'*{SUFFIX}')) and not any(
      folder.glob('*.safetensors')
  )


def file_of(path: pathlib.Path) -> pathlib.Path:
  """Returns the GGUF file at a path or in the folder at a path.

  Raises:
    UserError: if the folder has several GGUF files.
  """
  if path.is_file():
    return path
  files = sorted(path.glob(f'*{SUFFIX}'))
  if len(files) != 1:
    raise errors.UserError(
        f'{path}: has {len(files)} GGUF files; pass the path of one, such as'
        f' {files[0]}'
    )
  return files[0]


def read_config(path: pathlib.Path, name: str) -> config_lib.LmConfig:
  """Returns the config in the metadata; reads no weights and uses no device.

  Raises:
    DataError: if the file is damaged or its model is in no known family.
  """
  file = gguf_file.GgufFile(file_of(path))
  family = _family(file)
  embedding = file.tensors.get(gguf_fields.EMBEDDING)
  if embedding is None:
    raise errors.DataError(
        f'{file.path}: tensor {gguf_fields.EMBEDDING} is missing; fetch it'
        ' again'
    )
  rows = embedding.shape[0]
  tokens = file.metadata.get(_TOKENS)
  if isinstance(tokens, gguf_header.Array) and tokens.count != rows:
    raise errors.DataError(
        f'{file.path}: {_TOKENS} has {tokens.count} pieces, but'
        f' {gguf_fields.EMBEDDING} has {rows} rows; fetch it again'
    )
  prefix = f'{family.gguf.architecture}.'
  fields = {
      key.removeprefix(prefix): _plain(file, key)
      for key in file.metadata
      if key.startswith(prefix)
  }
  values, problems = family.gguf.read_fields(fields, rows)
  if problems:
    raise errors.DataError(
        f'{file.path}: not shaped like {family.title}:'
        f' {"; ".join(prefix + problem for problem in problems)}'
    )
  return config_lib.LmConfig(name=name, family=family.name, **values)


def _family(file: gguf_file.GgufFile) -> families.Family:
  """Returns the family of a file.

  Raises:
    DataError: if its model is in no known family, or the file is a part.
  """
  parts = file.metadata.get('split.count', 1)
  if parts not in (0, 1):
    raise errors.DataError(
        f'{file.path}: is one of {parts!r} parts of a model; merge the parts'
        ' into one file'
    )
  kind = file.metadata.get('general.type', 'model')
  if kind != 'model':
    raise errors.DataError(
        f"{file.path}: general.type is {kind!r}, wanted 'model'; pass the file"
        ' of a whole language model'
    )
  by_name = {f.gguf.architecture: f for f in families.FAMILIES.values()}
  name = file.metadata.get('general.architecture')
  if not isinstance(name, str) or name not in by_name:
    titles = ' or '.join(f.title for f in families.FAMILIES.values())
    raise errors.DataError(
        f'{file.path}: not shaped like {titles}: general.architecture is'
        f' {name!r}, wanted {" or ".join(map(repr, by_name))}'
    )
  return by_name[name]


def _plain(file: gguf_file.GgufFile, key: str) -> Any:
  """Returns an entry, with short arrays of numbers as lists."""
  value = file.metadata[key]
  if not isinstance(value, gguf_header.Array):
    return value
  if value.type == gguf_header.STRING or value.count > _MAX_NUMBERS:
    return value
  return np.asarray(file.numbers(key)).tolist()


class Weights:
  """A `weights.Reader` of a GGUF file, or of a folder with one."""

  def __init__(self, path: pathlib.Path, config: config_lib.LmConfig):
    self._file = gguf_file.GgufFile(file_of(path))
    self._config = config
    self._family = families.family_of(config)
    self._conversions = self._family.huggingface.conversions(config)

  def check(self, shapes: Mapping[str, weights.Shape]) -> None:
    """See `weights.Reader`; also raises for tensors unknown in the family.

    Raises:
      MissingExtraError: if the package `gguf` is not installed.
    """
    extras.check('gguf')
    for key in shapes:
      conversion, layer = self._conversion(key)
      for name in conversion.names:
        stored = gguf_fields.tensor_name(name).format(layer=layer)
        tensor = self._file.tensors.get(stored)
        weights.check_shape(
            self._file.path,
            stored,
            actual=None if tensor is None else tensor.shape,
            wanted=conversion.shape,
        )
    known = set(self._known_names())
    for name in self._file.tensors:
      if name not in known:
        raise errors.DataError(
            f'{self._file.path}: tensor {name!r} is unknown in a'
            f' {self._family.title} of {self._config.layers} layers'
        )

  def tensor(self, key: str) -> np.ndarray:
    """See `weights.Reader`."""
    conversion, layer = self._conversion(key)
    return conversion.combine(
        *(self._read(name, layer) for name in conversion.names)
    )

  def _read(self, name: str, layer: int | None) -> np.ndarray:
    """Returns a tensor of Hugging Face, named as in `Conversion.names`."""
    stored = gguf_fields.tensor_name(name).format(layer=layer)
    array = self._file.tensor(stored)
    return array - 1 if gguf_fields.is_gain(name) else array

  def _conversion(self, key: str) -> tuple[families.Conversion, int | None]:
    key, layer = families.split_layer(key)
    return self._conversions[key], layer

  def _known_names(self) -> Iterator[str]:
    for conversion in self._conversions.values():
      for name in conversion.names:
        for layer in range(self._config.layers):
          yield gguf_fields.tensor_name(name).format(layer=layer)
