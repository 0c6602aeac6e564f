"""Hugging Face's folders of Gemma 2: config.json and safetensors files."""

from collections.abc import Callable, Mapping
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu import errors
from jumprelu.lm import config as config_lib
from jumprelu.lm import huggingface_fields, weights

CONFIG = 'config.json'
_INDEX = 'model.safetensors.index.json'
_DTYPES = ('F32', 'BF16', 'F16')


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether a folder looks like Hugging Face's."""
  return (folder / CONFIG).is_file() or any(folder.glob('*.safetensors'))


def read_config(folder: pathlib.Path, name: str) -> config_lib.LmConfig:
  """Reads the shapes in config.json; touches neither weights nor a device.

  Raises:
    MissingInputError: if there is no config.json beside the weights.
    DataError: if it is damaged, or of a model that is not Gemma 2.
  """
  path = folder / CONFIG
  if not path.is_file():
    raise errors.MissingInputError(
        f'{path}: missing; it says the shapes of the weights beside it'
    )
  fields = _read_json(path)
  problems = huggingface_fields.problems(fields)
  if problems:
    raise errors.DataError(
        f'{path}: not shaped like Gemma 2: {"; ".join(problems)}'
    )
  given: dict[str, Any] = {
      ours: fields[field] for ours, field in huggingface_fields.SIZES.items()
  }
  given |= {
      ours: float(fields[field])
      for ours, field in huggingface_fields.CAPS.items()
  }
  return config_lib.LmConfig(
      name=name,
      **given,
      query_scale_by_model=fields['query_pre_attn_scalar'] != given['head_dim'],
      # The layout that needs no copy: gate and up projections lie like this.
      transposed_gating=True,
  )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    fields = json.loads(path.read_text('utf-8'))
  except (ValueError, OSError) as error:
    raise errors.DataError(
        f'{path}: not JSON ({error}); fetch it again'
    ) from None
  if not isinstance(fields, dict):
    raise errors.DataError(f'{path}: not a JSON object; fetch it again')
  return fields


class _Conversion(NamedTuple):
  """How one of our tensors is made of theirs, all of one shape."""

  names: tuple[str, ...]
  shape: weights.Shape
  combine: Callable[..., np.ndarray]


def _conversions(config: config_lib.LmConfig) -> dict[str, _Conversion]:
  """Returns, by our name below a layer, where its tensors come from."""
  d, f, h = config.d_model, config.ffw, config.head_dim
  n, k = config.heads, config.kv_heads

  def per_head(w):  # [heads * head_dim, model] -> [heads, model, head_dim]
    return w.reshape(-1, h, d).transpose(0, 2, 1)

  def gating(gate, up):
    both = np.stack([gate, up])
    return both if config.transposed_gating else both.transpose(0, 2, 1)

  def several(*parts):
    return np.stack([per_head(part) for part in parts])

  norms = {
      'pre_attention_norm': 'input_layernorm',
      'post_attention_norm': 'post_attention_layernorm',
      'pre_ffw_norm': 'pre_feedforward_layernorm',
      'post_ffw_norm': 'post_feedforward_layernorm',
  }
  query, key, value = (f'self_attn.{x}_proj' for x in 'qkv')
  return {
      'attn/q_einsum/w': _Conversion((query,), (n * h, d), per_head),
      'attn/kv_einsum/w': _Conversion((key, value), (k * h, d), several),
      # Where every head has keys and values of its own.
      'attn/qkv_einsum/w': _Conversion(
          (query, key, value), (n * h, d), several
      ),
      'attn/attn_vec_einsum/w': _Conversion(
          ('self_attn.o_proj',), (d, n * h), lambda o: o.T.reshape(n, h, d)
      ),
      'mlp/gating_einsum': _Conversion(
          ('mlp.gate_proj', 'mlp.up_proj'), (f, d), gating
      ),
      'mlp/linear': _Conversion(('mlp.down_proj',), (d, f), np.transpose),
  } | {
      # Both compute x * (1 + scale).
      f'{ours}/scale': _Conversion((theirs,), (d,), np.asarray)
      for ours, theirs in norms.items()
  }


class Weights:
  """The tensors of a folder; `weights.Reader`."""

  def __init__(self, folder: pathlib.Path, config: config_lib.LmConfig):
    self._folder = folder
    self._config = config
    self._conversions = _conversions(config)
    self._files = _files(folder)
    self._headers = {}

  def check(self, shapes: Mapping[str, weights.Shape]) -> None:
    """See `weights.Reader`; also refuses tensors that no Gemma 2 has."""
    for key in shapes:
      conversion = self._conversion(key)
      for name in conversion.names:
        self._check(name, conversion.shape)
    known = set(self._known_names())
    for name, path in self._files.items():
      if name not in known:
        raise errors.DataError(
            f'{path}: tensor {name} is unknown in a Gemma 2 of'
            f' {self._config.layers} layers'
        )

  def tensor(self, key: str) -> np.ndarray:
    """See `weights.Reader`."""
    conversion = self._conversion(key)
    return conversion.combine(
        *(weights.read_tensor(self._files[n], n) for n in conversion.names)
    )

  def _check(self, name, wanted):
    path = self._files.get(name)
    if path is None:
      weights.check_shape(self._folder, name, found=None, wanted=wanted)
      return
    if path not in self._headers:
      if not path.is_file():
        raise errors.DataError(
            f'{path}: missing; {_INDEX} says that it holds {name}, shape'
            f' {wanted}'
        )
      self._headers[path] = weights.header(path)
    found, dtype = self._headers[path].get(name, (None, ''))
    weights.check_shape(path, name, found=found, wanted=wanted)
    if dtype not in _DTYPES:
      raise errors.DataError(
          f'{path}: tensor {name} is of type {dtype}; wanted one of'
          f' {", ".join(_DTYPES)}'
      )

  def _conversion(self, key: str) -> _Conversion:
    """Returns where a tensor of our tree comes from, by their full names."""
    head, _, below = key.partition('/')
    config = self._config
    if head == 'embedder':
      shape = (config.vocab, config.d_model)
      return _Conversion(('model.embed_tokens.weight',), shape, np.asarray)
    if head == 'final_norm':
      return _Conversion(('model.norm.weight',), (config.d_model,), np.asarray)
    found = self._conversions[below]
    layer = head.removeprefix('layer_')
    names = tuple(f'model.layers.{layer}.{n}.weight' for n in found.names)
    return found._replace(names=names)

  def _known_names(self):
    # Some files repeat the embedding as the output layer: the two are tied.
    yield from ('model.embed_tokens.weight', 'model.norm.weight')
    yield 'lm_head.weight'
    for layer in range(self._config.layers):
      for below in self._conversions:
        yield from self._conversion(f'layer_{layer}/{below}').names


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns which file holds which tensor: as the index says, or all there."""
  index = folder / _INDEX
  if index.is_file():
    table = _read_json(index).get('weight_map')
    if not isinstance(table, dict) or not all(
        # A name leads to no other folder.
        isinstance(f, str) and pathlib.PurePath(f).name == f
        for f in table.values()
    ):
      raise errors.DataError(
          f'{index}: no weight_map from tensors to files; fetch it again'
      )
    return {name: folder / file for name, file in table.items()}
  paths = sorted(folder.glob('*.safetensors'))
  if not paths:
    raise errors.MissingInputError(
        f'{folder}: no *.safetensors; put the weights beside {CONFIG}'
    )
  return {name: path for path in paths for name in weights.header(path)}
