"""The record of a family of language models: everything its models share."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jumprelu.lm import config as config_lib
from jumprelu.lm import sites

Shape = tuple[int, ...]
# The logical axes of a parameter (`jumprelu.sharding`).
Axes = tuple[str | None, ...]


def split_layer(key: str) -> tuple[str, int | None]:
  """Returns a parameter's key without the layer's number, and that number.

  For example, 'layer_3/mlp/linear' becomes 'layer/mlp/linear' and 3. The key of
  a parameter outside of the layers is unchanged, and its number is None.
  """
  module, _, below = key.partition('/')
  if not module.startswith('layer_'):
    return key, None
  return f'layer/{below}', int(module.removeprefix('layer_'))


class SpecialIds(NamedTuple):
  """The ids of special tokens."""

  pad: int
  eos: int
  bos: int
  unk: int
  start_of_turn: int
  end_of_turn: int


class HookNames(NamedTuple):
  """A site's names in other libraries, with `{layer}` for the layer's number.

  Attributes:
    transformer_lens: The name in a TransformerLens model loaded without
      processing, so that the norms' gains are not folded into other weights.
    huggingface: The name of a module of transformers' model, followed by
      `.input` or `.output`.
  """

  transformer_lens: str
  huggingface: str


class Matrices(NamedTuple):
  """The number of weights in one layer's matrices."""

  attention_inputs: int  # Of queries, keys and values.
  attention_output: int  # Of the projection of the heads' outputs.
  mlp: int


class Conversion(NamedTuple):
  """A conversion of Hugging Face tensors of one shape to one of our tensors.

  Attributes:
    names: Hugging Face's names without their prefix, with `{layer}` for the
      number of our tensor's layer.
    shape: The shape of each of Hugging Face's tensors.
    combine: Returns our tensor from Hugging Face's, in the order of `names`.
    spare_rows: The number of rows that Hugging Face's tensor may have beyond
      `shape`; they are not read.
  """

  names: tuple[str, ...]
  shape: Shape
  combine: Callable[..., np.ndarray]
  spare_rows: int = 0


class ReadFields(NamedTuple):
  """The result of reading a config.json.

  Attributes:
    values: The arguments of `LmConfig`, except its name and family; complete
      only if there are no problems.
    problems: The differences between the file and the family, one phrase each.
  """

  values: dict[str, Any]
  problems: list[str]


@dataclasses.dataclass(frozen=True)
class HuggingFace:
  """Folders in Hugging Face's format.

  Attributes:
    model_classes: The values of `model_type` in config.json -> the class of
      transformers that reads such a folder.
    read_fields: Reads the fields of config.json.
    conversions: Returns the conversions to our tensors; their keys are those of
      `split_layer`.
    prefixes: The prefixes that names of tensors may have; all names in a folder
      have the same one.
    unread: Prefixes of the names of tensors that are accepted but not read.
  """

  model_classes: Mapping[str, str]
  read_fields: Callable[[Mapping[str, Any]], ReadFields]
  conversions: Callable[[config_lib.LmConfig], Mapping[str, Conversion]]
  prefixes: tuple[str, ...] = ('model.',)
  unread: tuple[str, ...] = ('lm_head.weight',)


@dataclasses.dataclass(frozen=True)
class Orbax:
  """Orbax folders, whose tensors have the names of our parameter tree.

  Attributes:
    present: Tensors of this family that distinguish it from other families.
    absent: Tensors that only other families have.
    complete: Receives the arguments of `LmConfig` that the tensors' shapes
      determine, and returns the other arguments that the family sets.
    unread: Prefixes of the names of tensors that are accepted but not read.
  """

  present: tuple[str, ...]
  absent: tuple[str, ...]
  complete: Callable[[Mapping[str, Any]], dict[str, Any]]
  unread: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Gguf:
  """GGUF files, whose tensors are Hugging Face's under other names.

  Attributes:
    architecture: The value of `general.architecture`.
    read_fields: Receives the metadata of the architecture, with keys without
      its name, and the number of rows of the embedding.
  """

  architecture: str
  read_fields: Callable[[Mapping[str, Any], int], ReadFields]


@dataclasses.dataclass(frozen=True)
class Family:
  """Properties of a family's models, except the sizes in `LmConfig`.

  Attributes:
    name: The value of `LmConfig.family`.
    title: The name in messages.
    models: The released models.
    model_name: Returns our name of a model from its name in other libraries, or
      None if the model is not in the family.
    missing_weights: Returns the part of an error that explains where to get a
      released model's weights.
    transformer: Further arguments of the gemma package's TransformerConfig.
    site_of_path: A module's path below its block -> the site at the module's
      output (its input for `Site.ATTN_HEADS`).
    param_axes: Returns the logical axes of parameters; the keys are those of
      `split_layer`. Parameters that are not in the mapping are replicated.
    matrices: Returns the sizes of a layer's matrices.
    hook_names: A site -> its names in other libraries.
    input_gain_hook_names: The names of `Site.MLP_IN` divided by its gain.
    special_ids: The tokenizer's special ids.
    turn_pieces: The pieces that open and close a turn of a chat.
    huggingface: Folders in Hugging Face's format.
    orbax: Orbax folders.
    gguf: GGUF files.
  """

  name: str
  title: str
  models: tuple[config_lib.LmConfig, ...]
  model_name: Callable[[str], str | None]
  missing_weights: Callable[[str], str]
  transformer: Mapping[str, Any]
  site_of_path: Mapping[tuple[str, ...], sites.Site]
  param_axes: Callable[[config_lib.LmConfig], Mapping[str, Axes]]
  matrices: Callable[[config_lib.LmConfig], Matrices]
  hook_names: Mapping[sites.Site, HookNames]
  input_gain_hook_names: HookNames
  special_ids: SpecialIds
  turn_pieces: tuple[str, str]
  huggingface: HuggingFace
  orbax: Orbax
  gguf: Gguf
