"""Folders in Hugging Face's format: config.json and safetensors files."""

from collections.abc import Iterator, Mapping
import pathlib

import numpy as np

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.lm import config as config_lib
from jumprelu.lm import families, weights
from jumprelu.lm.families import huggingface_fields

_CURE = 'fetch it again'

CONFIG = 'config.json'
_INDEX = 'model.safetensors.index.json'
_DTYPES = ('F32', 'BF16', 'F16')


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether a folder is in Hugging Face's format."""
  return (folder / CONFIG).is_file() or any(folder.glob('*.safetensors'))


def read_config(folder: pathlib.Path, name: str) -> config_lib.LmConfig:
  """Returns the config in config.json; reads no weights and uses no device.

  Raises:
    MissingInputError: if there is no config.json beside the weights.
    DataError: if the file is damaged or its model is in no known family.
  """
  path = folder / CONFIG
  if not path.is_file():
    raise errors.MissingInputError(
        f'{path}: missing, but the shapes of the weights are read from it; put'
        ' it beside the weights'
    )
  fields = json_files.read_json(path, cure=_CURE)
  by_type = {
      model_type: family
      for family in families.FAMILIES.values()
      for model_type in family.huggingface.model_classes
  }
  family = by_type.get(str(fields.get('model_type', '')))
  if family is None:
    titles = ' or '.join(f.title for f in families.FAMILIES.values())
    raise errors.DataError(
        f'{path}: not shaped like {titles}: model_type is'
        f' {huggingface_fields.short(fields.get("model_type"))}, wanted'
        f' {" or ".join(map(repr, by_type))}'
    )
  values, problems = family.huggingface.read_fields(fields)
  if problems:
    raise errors.DataError(
        f'{path}: not shaped like {family.title}: {"; ".join(problems)}'
    )
  return config_lib.LmConfig(name=name, family=family.name, **values)


class Weights:
  """A `weights.Reader` of a folder in Hugging Face's format."""

  def __init__(self, folder: pathlib.Path, config: config_lib.LmConfig):
    self._folder = folder
    self._config = config
    self._family = families.family_of(config)
    self._format = self._family.huggingface
    self._conversions = self._format.conversions(config)
    self._files = _files(folder)
    self._prefix = self._find_prefix()
    self._headers = {}

  def check(self, shapes: Mapping[str, weights.Shape]) -> None:
    """See `weights.Reader`; also raises for tensors unknown in the family."""
    for key in shapes:
      conversion = self._conversion(key)
      for name in conversion.names:
        self._check(name, conversion.shape, conversion.spare_rows)
    known = set(self._known_names())
    for name, path in self._files.items():
      if name not in known and not name.startswith(self._format.unread):
        raise errors.DataError(
            f'{path}: tensor {name} is unknown in a {self._family.title} of'
            f' {self._config.layers} layers'
        )

  def tensor(self, key: str) -> np.ndarray:
    """See `weights.Reader`."""
    conversion = self._conversion(key)
    rows = conversion.shape[0] if conversion.spare_rows else None
    return conversion.combine(
        *(
            weights.read_tensor(self._files[name], name, rows)
            for name in conversion.names
        )
    )

  def _check(self, name, wanted, spare_rows):
    path = self._files.get(name)
    if path is None:
      weights.check_shape(self._folder, name, actual=None, wanted=wanted)
      return
    if path not in self._headers:
      if not path.is_file():
        raise errors.DataError(
            f'{path}: missing; {_INDEX} lists it as the file of {name}, shape'
            f' {wanted}; {_CURE}'
        )
      self._headers[path] = weights.header(path)
    shape, dtype = self._headers[path].get(name, (None, ''))
    if shape == (wanted[0] + spare_rows, *wanted[1:]):
      shape = wanted
    weights.check_shape(path, name, actual=shape, wanted=wanted)
    if dtype not in _DTYPES:
      raise errors.DataError(
          f'{path}: tensor {name} is of type {dtype}; wanted one of'
          f' {", ".join(_DTYPES)}'
      )

  def _find_prefix(self) -> str:
    """Returns the family's prefix that most tensors of the first layer have."""
    names = {
        name.format(layer=0)
        for conversion in self._conversions.values()
        for name in conversion.names
    }
    return max(
        self._format.prefixes,
        key=lambda prefix: sum(prefix + name in self._files for name in names),
    )

  def _conversion(self, key: str) -> families.Conversion:
    """Returns the conversion to our tensor `key`, with the folder's names."""
    key, layer = families.split_layer(key)
    conversion = self._conversions[key]
    return conversion._replace(
        names=tuple(
            self._prefix + name.format(layer=layer) for name in conversion.names
        )
    )

  def _known_names(self) -> Iterator[str]:
    for conversion in self._conversions.values():
      for name in conversion.names:
        for layer in range(self._config.layers):
          yield self._prefix + name.format(layer=layer)


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns each tensor's file, from the index if the folder has one.

  Raises:
    MissingInputError: there are no weights.
    DataError: two files hold the same tensor, or one is damaged.
  """
  index, whole = folder / _INDEX, folder / 'model.safetensors'
  if index.is_file():
    table = json_files.read_json(index, cure=_CURE).get('weight_map')
    if not isinstance(table, dict) or not all(
        # A file in another folder must not be read.
        isinstance(f, str) and pathlib.PurePath(f).name == f
        for f in table.values()
    ):
      raise errors.DataError(
          f'{index}: no weight_map from tensors to files; {_CURE}'
      )
    # With both, other libraries read the whole file, and the index may be
    # that of shards with other weights.
    if whole.is_file() and whole.name not in table.values():
      raise errors.DataError(
          f'{folder}: has both {whole.name} and {_INDEX}, which lists other'
          ' files; remove one of the two with its files'
      )
    return {name: folder / file for name, file in table.items()}
  paths = sorted(folder.glob('*.safetensors'))
  if not paths:
    raise errors.MissingInputError(
        f'{folder}: no *.safetensors; put the weights beside {CONFIG}'
    )
  files: dict[str, pathlib.Path] = {}
  for path in paths:
    for name in weights.header(path):
      if name in files:
        raise errors.DataError(
            f'{folder}: tensor {name} is in {files[name].name} and in'
            f' {path.name}; remove the file of the other model'
        )
      files[name] = path
  return files
