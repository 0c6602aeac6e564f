"""The config, folder and format of the model that --model names.

This module reads no weights, does not import gemma and uses no device, so that
a wrong flag fails early. Nothing is ever downloaded.
"""

import dataclasses
import os
import pathlib
from typing import Any

from jumprelu import errors
from jumprelu.files import dotted
from jumprelu.lm import config as config_lib
from jumprelu.lm import families, huggingface, orbax_folder, weights

NANO = 'gemma2_nano'
_NANO_FOLDER = pathlib.Path(__file__).parent / 'nano'

# Formats of folders. Each module has `recognises(folder)`,
# `read_config(folder, name)` and `Weights(folder, config)`, a `weights.Reader`.
FORMATS: dict[str, Any] = {
    'Hugging Face': huggingface,
    'orbax': orbax_folder,
}

# Fields in which a known model's folder must have the values of `MODELS`.
_IDENTITY = (
    'family',
    'd_model',
    'ffw',
    'heads',
    'kv_heads',
    'head_dim',
    'layers',
    'layer_pattern',
    'window',
    'attention_softcap',
    'logits_softcap',
    'qk_norm',
    'local_rope',
    'global_rope',
    'query_scale_by_model',
)


@dataclasses.dataclass(frozen=True)
class Source:
  """The files of a model and their config."""

  config: config_lib.LmConfig
  folder: pathlib.Path
  format: Any = None  # A module of `FORMATS`; None for the embedded model.

  def open(self) -> weights.Reader:
    """Returns a reader of the weights."""
    if self.format is None:
      return weights.PackageFile(self.folder / 'params.safetensors')
    return self.format.Weights(self.folder, self.config)

  @property
  def tokenizer_path(self) -> pathlib.Path:
    """The tokenizer's file, in the folder or (as on Kaggle) beside it."""
    inside = self.folder / 'tokenizer.model'
    beside = self.folder.resolve().parent / 'tokenizer.model'
    return beside if beside.is_file() and not inside.is_file() else inside


def models_dir() -> pathlib.Path:
  """Returns the folder that holds the folders of known models."""
  folder = os.environ.get('JUMPRELU_MODELS')
  return pathlib.Path(folder or '~/.cache/jumprelu/models').expanduser()


def get_config(model: str) -> config_lib.LmConfig:
  """Returns the shapes of a known model or of the model in a folder.

  Raises:
    UserError: if `model` is neither; the known names are listed.
    MissingInputError: if the folder does not exist or has no model in it.
    DataError: if the folder is damaged or its model is in no known family.
  """
  if model in families.MODELS:
    return families.MODELS[model]
  return find(model).config


def find(model: str) -> Source:
  """Returns the files of a model.

  Raises:
    UserError: if `model` is neither a known name nor a folder.
    MissingInputError: if a known model's folder or the folder `model` does not
      exist, or has no model in it.
    DataError: if the folder is damaged, its model is in no known family, or a
      known model's folder contains another model.
  """
  if model == NANO:
    return Source(families.MODELS[NANO], _NANO_FOLDER)
  if model in families.MODELS:
    return _find_known(model)
  folder = pathlib.Path(model).expanduser()
  if not folder.is_dir():
    similar, known = _similar(model), ', '.join(families.MODELS)
    if os.sep in model or model.startswith(('.', '~')):
      raise errors.MissingInputError(
          f'--model={model}: no such folder{similar}; known names: {known}'
      )
    raise errors.UserError(
        f'--model={model}: unknown{similar}; use the folder of a model, or one'
        f' of {known}'
    )
  return _open_folder(folder, folder.resolve().name)


def huggingface_folder(model: str) -> pathlib.Path:
  """Returns the folder of a model that transformers can read.

  Raises:
    UserError: if the folder is in another format.
    Other errors are those of `find`.
  """
  source = find(model)
  if source.format is not huggingface:
    raise errors.UserError(
        f'--model={model}: is not in the format of Hugging Face, which'
        ' transformers needs; use a folder with config.json and *.safetensors'
    )
  return source.folder


def _similar(model: str) -> str:
  """Returns ' (did you mean X?)' for a name of Hugging Face or with a typo.

  It is empty for other paths.
  """

  def letters(name):
    return ''.join(filter(str.isalnum, name.lower()))

  for name in families.MODELS:
    if letters(model.rpartition('/')[2]) == letters(name):
      return f' (did you mean {name}?)'
  return '' if os.sep in model else dotted.nearest(model, families.MODELS)


def _open_folder(folder: pathlib.Path, name: str) -> Source:
  for module in FORMATS.values():
    if module.recognises(folder):
      return Source(module.read_config(folder, name), folder, module)
  raise errors.MissingInputError(
      f'{folder}: no model in this folder; wanted: config.json and'
      ' *.safetensors (Hugging Face), or _METADATA and arrays (orbax)'
  )


def _find_known(name: str) -> Source:
  """Returns a known model's files; raises as `find` does."""
  folder = models_dir() / name
  if not folder.is_dir():
    family = families.family_of(families.MODELS[name])
    raise errors.MissingInputError(
        f'--model={name}: no weights at {folder} (nothing is downloaded):'
        f' {family.missing_weights(name)}, set JUMPRELU_MODELS to a folder that'
        ' holds such folders, or pass --model=DIR'
    )
  source = _open_folder(folder, name)
  wanted = families.MODELS[name]
  for field in _IDENTITY:
    value = getattr(source.config, field)
    if value != getattr(wanted, field):
      raise errors.DataError(
          f'{folder}: is not {name}: {field} is {value}, wanted'
          f' {getattr(wanted, field)}; pass --model=DIR to use it as it is'
      )
  return source
