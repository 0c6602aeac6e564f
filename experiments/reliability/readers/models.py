"""Readers of language models and tokenizers."""

import functools
import json
import pathlib
import struct
from typing import Any
import zlib

import jax.numpy as jnp
import numpy as np

from experiments.nano import huggingface_config
from experiments.reliability import archives, mutations
from experiments.reliability.readers import base
from jumprelu import data, lm
from jumprelu.lm import gguf_model, huggingface, placement, source, weights

_TINY = lm.LmConfig(
    name='tiny',
    family='gemma2',
    vocab=16,
    d_model=8,
    ffw=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    layers=2,
    layer_pattern=('local', 'global'),
    window=5,
    context=64,
    attention_softcap=50.0,
    logits_softcap=30.0,
)
_GEMMA2 = huggingface_config.fields_of(_TINY)
_GEMMA3 = _GEMMA2 | {
    'architectures': ['Gemma3ForCausalLM'],
    'model_type': 'gemma3_text',
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'rope_theta': 1e6,
    'rope_local_base_freq': 1e4,
    'rope_scaling': {'rope_type': 'linear', 'factor': 8.0},
    'sliding_window_pattern': 2,
}
_INDEX = 'model.safetensors.index.json'
_BYTES = (mutations.of_bytes,)
# The pieces that are kept: special ones, bytes and words, and characters.
_FIRST, _LAST = 300, 100
_TEXT = 'def f(x):\n    return "grün" + \U0001f600 x[1:]\n'


def readers() -> list[base.Reader]:
  """Returns the readers of this file."""
  config = {'*/config.json': (mutations.of_json,)}
  return [
      base.Reader('huggingface_config', _configs, _read_configs, config),
      base.Reader(
          'huggingface_weights', _folder, _read_weights,
          {_INDEX: (mutations.of_json,),
           '*.safetensors': (*_BYTES, archives.of_safetensors)},
      ),
      base.Reader('gguf', _gguf, _read_gguf, {'model.gguf': _BYTES}),
      base.Reader(
          'gguf_tokenizer', _gguf_tokenizer,
          functools.partial(_read_tokenizer, name='tokenizer.gguf'),
          {'*': _BYTES},
      ),
      base.Reader(
          'tokenizer', _tokenizer,
          functools.partial(_read_tokenizer, name='tokenizer.model'),
          {'*': _BYTES},
      ),
      base.Reader(
          'jumprelu_weights', _package, _read_package,
          {'*.safetensors': (*_BYTES, archives.of_safetensors)},
      ),
  ]  # fmt: skip


def _configs(folder: pathlib.Path) -> None:
  _shapes()  # Imports modules, which takes seconds and memory.
  for name, config in (('gemma2', _GEMMA2), ('gemma3', _GEMMA3)):
    (folder / name).mkdir()
    (folder / name / 'config.json').write_text(json.dumps(config))


def _read_configs(folder: pathlib.Path) -> Any:
  paths = sorted(folder.iterdir())
  configs = [huggingface.read_config(path, path.name) for path in paths]
  for path, config in zip(paths, configs, strict=True):
    # Shapes are computed from a config before its weights are read. Because
    # this is slow, it is done for one case in 16.
    if zlib.crc32((path / 'config.json').read_bytes()) % 16 == 0:
      placement.param_layout(config, num_layers=2, dtype=jnp.float32, mesh=None)
  return configs


@functools.cache
def _config() -> Any:
  return lm.LmConfig(
      name='tiny',
      family='gemma2',
      **huggingface_fields(),
  )


def huggingface_fields() -> dict[str, Any]:
  """Returns the fields of our config that equal `_GEMMA2`."""
  values, problems = lm.FAMILIES['gemma2'].huggingface.read_fields(
      dict(_GEMMA2)
  )
  assert not problems, problems
  return values


@functools.cache
def _shapes() -> dict[str, tuple[int, ...]]:
  layout = placement.param_layout(
      _config(), num_layers=2, dtype=jnp.float32, mesh=None
  )
  return {key: leaf.shape for key, leaf in weights.flatten(layout).items()}


def _tensors() -> dict[str, np.ndarray]:
  """Returns the tensors of a Hugging Face folder, by name."""
  rng = np.random.default_rng(0)
  result = {}
  for key in _shapes():
    whole, layer = lm.families.split_layer(key)
    conversion = _family().huggingface.conversions(_config())[whole]
    for name in conversion.names:
      name = 'model.' + name.format(layer=layer)
      result.setdefault(name, conversion.shape)
  return {
      name: rng.normal(size=shape).astype(np.float32)
      for name, shape in result.items()
  }


def _family() -> Any:
  return lm.families.family_of(_config())


def _folder(folder: pathlib.Path) -> None:
  from safetensors import numpy as safetensors

  tensors = _tensors()
  names = list(tensors)
  table = {}
  for number, part in enumerate((names[::2], names[1::2]), 1):
    file = f'model-0000{number}-of-00002.safetensors'
    safetensors.save_file({n: tensors[n] for n in part}, folder / file)
    table |= dict.fromkeys(part, file)
  (folder / _INDEX).write_text(json.dumps({'weight_map': table}))


def _read_weights(folder: pathlib.Path) -> Any:
  return _all(huggingface.Weights(folder, _config()))


def _all(reader: weights.Reader) -> dict[str, np.ndarray]:
  """Returns all tensors of a reader; raises as it does."""
  reader.check(_shapes())
  result = {key: reader.tensor(key) for key in _shapes()}
  for key, value in result.items():
    if value.shape != _shapes()[key]:
      raise base.Wrong(f'{key} has shape {value.shape}')
  return result


def _package(folder: pathlib.Path) -> None:
  from safetensors import numpy as safetensors

  values = {k: np.zeros(shape, np.float32) for k, shape in _shapes().items()}
  safetensors.save_file(values, folder / 'params.safetensors')


def _read_package(folder: pathlib.Path) -> Any:
  return _all(weights.PackageFile(folder / 'params.safetensors'))


def _read_gguf(folder: pathlib.Path) -> Any:
  model = source.find(str(folder / 'model.gguf'))
  if model.config.layers > 64 or model.config.d_model > 64:
    return model.config  # Another model, whose tensors the file lacks.
  layout = placement.param_layout(
      model.config, num_layers=1, dtype=jnp.float32, mesh=None
  )
  shapes = {k: leaf.shape for k, leaf in weights.flatten(layout).items()}
  reader = gguf_model.Weights(folder / 'model.gguf', model.config)
  reader.check(shapes)
  return {key: reader.tensor(key) for key in shapes}


def _read_tokenizer(folder: pathlib.Path, *, name: str) -> Any:
  tokenizer = data.Tokenizer(folder / name, rows=1000)
  ids = tokenizer.encode(_TEXT)
  if ids and max(ids) >= tokenizer.vocab_size:
    raise base.Wrong(f'token {max(ids)} of {tokenizer.vocab_size}')
  tokenizer.encode_with_starts(_TEXT)
  pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
  return ids, tokenizer.decode(ids), pieces


@functools.cache
def _pieces() -> Any:
  """Returns the embedded model's tokenizer without most of its words."""
  from sentencepiece import sentencepiece_model_pb2

  model: Any = sentencepiece_model_pb2.ModelProto()
  nano = source.find(source.NANO).tokenizer_path
  model.ParseFromString(nano.read_bytes())
  del model.pieces[_FIRST:-_LAST]
  return model


def _tokenizer(folder: pathlib.Path) -> None:
  text = _pieces().SerializeToString(deterministic=True)
  (folder / 'tokenizer.model').write_bytes(text)


_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_PACKED = {_U32: '<I', 5: '<i', _F32: '<f', _BOOL: '<?'}


def _vocabulary() -> dict[str, tuple[int, Any]]:
  """Returns the metadata of a SentencePiece model in GGUF."""
  pieces = _pieces().pieces
  prefix = 'tokenizer.ggml.'
  ids = {'bos': 2, 'eos': 1, 'unknown': 3, 'padding': 0}
  return {
      f'{prefix}model': (_STRING, 'llama'),
      f'{prefix}tokens': (_ARRAY, (_STRING, [p.piece for p in pieces])),
      f'{prefix}scores': (_ARRAY, (_F32, [p.score for p in pieces])),
      f'{prefix}token_type': (_ARRAY, (5, [p.type for p in pieces])),
      **{f'{prefix}{k}_token_id': (_U32, v) for k, v in ids.items()},
      f'{prefix}add_space_prefix': (_BOOL, False),
  }


def _gguf_tokenizer(folder: pathlib.Path) -> None:
  path = folder / 'tokenizer.gguf'
  path.write_bytes(_gguf_bytes(_vocabulary(), {}))


def _gguf(folder: pathlib.Path) -> None:
  sizes = {
      'context_length': 64, 'embedding_length': 8, 'block_count': 2,
      'feed_forward_length': 8, 'attention.head_count': 2,
      'attention.head_count_kv': 1, 'attention.key_length': 4,
      'attention.value_length': 4, 'attention.sliding_window': 5,
  }  # fmt: skip
  numbers = {
      'attention.layer_norm_rms_epsilon': 1e-6,
      'attn_logit_softcapping': 50.0,
      'final_logit_softcapping': 30.0,
  }
  metadata = {
      'general.architecture': (_STRING, 'gemma2'),
      'general.type': (_STRING, 'model'),
      **{f'gemma2.{key}': (_U32, value) for key, value in sizes.items()},
      **{f'gemma2.{key}': (_F32, value) for key, value in numbers.items()},
  }
  from jumprelu.lm.families import gguf_fields

  tensors = {
      gguf_fields.tensor_name(_layerless(name)).format(layer=_layer(name)): x
      for name, x in _tensors().items()
  }
  (folder / 'model.gguf').write_bytes(_gguf_bytes(metadata, tensors))


def _layer(name: str) -> str:
  parts = name.split('.')
  return parts[2] if parts[1] == 'layers' else ''


def _layerless(name: str) -> str:
  parts = name.split('.')[1:]
  if parts[0] == 'layers':
    parts[1] = '{layer}'
  return '.'.join(parts)


def _gguf_bytes(metadata: Any, tensors: dict[str, np.ndarray]) -> bytes:
  out = [b'GGUF', struct.pack('<IQQ', 3, len(tensors), len(metadata))]
  for key, (kind, value) in metadata.items():
    out += [_string(key), struct.pack('<I', kind), _value(kind, value)]
  offset, values = 0, []
  for name, array in tensors.items():
    out += [_string(name), struct.pack('<I', array.ndim)]
    out.append(struct.pack(f'<{array.ndim}Q', *array.shape[::-1]))
    out.append(struct.pack('<IQ', 0, offset))  # 0 is the type float32.
    raw = array.tobytes()
    values.append(raw + bytes(-len(raw) % 32))
    offset += len(values[-1])
  header = b''.join(out)
  return header + bytes(-len(header) % 32) + b''.join(values)


def _string(text: str) -> bytes:
  raw = text.encode()
  return struct.pack('<Q', len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
  if kind == _ARRAY:
    inner, values = value
    parts = b''.join(_value(inner, v) for v in values)
    return struct.pack('<IQ', inner, len(values)) + parts
  if kind == _STRING:
    return _string(value)
  return struct.pack(_PACKED[kind], value)
