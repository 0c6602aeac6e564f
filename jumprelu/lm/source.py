"""The config, files and format of the model that --model names.

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
from jumprelu.lm import (
    families,
    gguf_model,
    huggingface,
    orbax_folder,
    weights,
)

NANO = 'gemma2_nano'
_NANO_FOLDER = pathlib.Path(__file__).parent / 'nano'

# Formats. Each module has `recognises(path)`, `read_config(path, name)` and
# `Weights(path, config)`, a `weights.Reader`.
FORMATS: dict[str, Any] = {
    'GGUF': gguf_model,
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
  path: pathlib.Path  # The folder, or the GGUF file.
  format: Any = None  # A module of `FORMATS`; None for the embedded model.

  def open(self) -> weights.Reader:
    """Returns a reader of the weights."""
    if self.format is None:
      return weights.PackageFile(self.path / 'params.safetensors')
    return self.format.Weights(self.path, self.config)

  @property
  def tokenizer_path(self) -> pathlib.Path:
    """The tokenizer's file, in the folder or (as on Kaggle) beside it.

    A GGUF file contains its tokenizer.
    """
    if self.format is gguf_model:
      return gguf_model.file_of(self.path)
    inside = self.path / 'tokenizer.model'
    beside = self.path.resolve().parent / 'tokenizer.model'
    return beside if beside.is_file() and not inside.is_file() else inside


def models_dir() -> pathlib.Path:
  """Returns the folder that holds the folders of known models."""
  folder = os.environ.get('JUMPRELU_MODELS')
  return pathlib.Path(folder or '~/.cache/jumprelu/models').expanduser()


def get_config(model: str) -> config_lib.LmConfig:
  """Returns the shapes of a known model, or of a folder or GGUF file.

  Raises:
    UserError: if `model` is none of them; the known names are listed.
    MissingInputError: if the path does not exist or has no model in it.
    DataError: if the files are damaged or their model is in no known family.
  """
  if model in families.MODELS:
    return families.MODELS[model]
  return find(model).config


def find(model: str) -> Source:
  """Returns the files of a model.

  Raises:
    UserError: if `model` is neither a known name nor a folder or GGUF file.
    MissingInputError: if a known model's folder or the path `model` does not
      exist, or has no model in it.
    DataError: if the files are damaged, their model is in no known family, or a
      known model's folder contains another model.
  """
  if model == NANO:
    return Source(families.MODELS[NANO], _NANO_FOLDER)
  if model in families.MODELS:
    return _find_known(model)
  path = pathlib.Path(model).expanduser()
  if path.is_file():
    config = gguf_model.read_config(path, path.stem)
    return Source(config, path, gguf_model)
  if path.is_dir():
    return _open_folder(path, path.resolve().name)
  similar, known = _similar(model), ', '.join(families.MODELS)
  if model.endswith(gguf_model.SUFFIX):
    raise errors.MissingInputError(
        f'--model={model}: no such file; pass the path of a GGUF file'
    )
  if os.sep in model or model.startswith(('.', '~')):
    raise errors.MissingInputError(
        f'--model={model}: no such folder{similar}; known names: {known}'
    )
  raise errors.UserError(
      f'--model={model}: unknown{similar}; use the folder or GGUF file of a'
      f' model, or one of {known}'
  )


def transformers_path(model: str) -> pathlib.Path:
  """Returns the folder or GGUF file of a model that transformers can read.

  Raises:
    UserError: if the model is in another format.
    Other errors are those of `find`.
  """
  source = find(model)
  if source.format is gguf_model:
    return gguf_model.file_of(source.path)
  if source.format is not huggingface:
    raise errors.UserError(
        f'--model={model}: is not in the format of Hugging Face or GGUF, which'
        ' transformers reads; use a folder with config.json and *.safetensors,'
        ' or FILE.gguf'
    )
  return source.path


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
  if (folder / 'adapter_config.json').is_file():
    raise errors.UserError(
        f'{folder}: an adapter (adapter_config.json), not a whole model; merge'
        ' it into its base model, for example with merge_and_unload of peft'
    )
  for module in FORMATS.values():
    if module.recognises(folder):
      return Source(module.read_config(folder, name), folder, module)
  if snapshots := sorted(folder.glob('snapshots/*/')):
    raise errors.UserError(
        f'{folder}: the cache of a repository; pass the folder of a revision in'
        f' it, --model={snapshots[-1]}'
    )
  raise errors.MissingInputError(
      f'{folder}: no model in this folder; wanted: config.json and'
      ' *.safetensors (Hugging Face), _METADATA and arrays (orbax), or one'
      ' *.gguf'
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
