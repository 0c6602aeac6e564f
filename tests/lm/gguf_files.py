"""Tiny random Gemmas in GGUF files, with the weights of a Hugging Face folder.

The files are written byte by byte, so that a test can also write a damaged one.
"""

import dataclasses
import functools
import pathlib
import struct
from typing import Any

import gguf
import numpy as np
from sentencepiece import sentencepiece_model_pb2

from jumprelu import lm
from tests.lm import huggingface_folders

_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_FORMATS = {2: '<H', _U32: '<I', 5: '<i', _F32: '<f', _BOOL: '<?', 10: '<Q'}
Type = gguf.GGMLQuantizationType

# A file's tokenizer has 4096 pieces.
_ROWS = {'vocab_size': 4096}
# Files cannot express another query scale, and usually no other pattern.
_GEMMA3 = (
    huggingface_folders.GEMMA3_CONFIGS['gemma3_270m']
    | _ROWS
    | {
        'query_pre_attn_scalar': 8,
        'num_hidden_layers': 7,
        'sliding_window_pattern': 6,
    }
)
CONFIGS = {
    '2b': huggingface_folders.CONFIGS['2b'] | _ROWS,
    '9b': huggingface_folders.CONFIGS['9b'] | _ROWS,
    'ungrouped': huggingface_folders.CONFIGS['ungrouped'] | _ROWS,
    'gemma3': _GEMMA3,
    'gemma3_scaled': _GEMMA3
    | {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}},
}

# Hugging Face's modules and their names in GGUF files of llama.cpp.
_NAMES = {
    'embed_tokens': 'token_embd',
    'norm': 'output_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    'self_attn.q_norm': 'attn_q_norm',
    'self_attn.k_norm': 'attn_k_norm',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
    'input_layernorm': 'attn_norm',
    'post_attention_layernorm': 'post_attention_norm',
    'pre_feedforward_layernorm': 'ffn_norm',
    'post_feedforward_layernorm': 'post_ffw_norm',
}


@dataclasses.dataclass
class Tensor:
  """An entry of the table of tensors; `dims` has the fastest axis first."""

  dims: tuple[int, ...]
  type: int
  data: bytes
  # The offset from the start of the data; None: after the previous tensor.
  offset: int | None = None


@dataclasses.dataclass
class Draft:
  """The contents of a file, which a test may change before it is written."""

  metadata: dict[str, tuple[int, Any]]  # {key: (type, value)}.
  tensors: dict[str, Tensor]
  magic: bytes = b'GGUF'
  version: int = 3
  alignment: int = 32
  # More entries with names that already exist.
  more_metadata: tuple = ()
  more_tensors: tuple = ()
  counts: tuple[int, int] | None = None

  def bytes(self) -> bytes:
    """Returns the file's bytes."""
    return self.header() + self._data()[0]

  def header(self) -> bytes:
    """Returns the header's bytes, with the padding after it."""
    entries = [*self.metadata.items(), *self.more_metadata]
    tensors = [*self.tensors.items(), *self.more_tensors]
    counts = self.counts or (len(tensors), len(entries))
    out = [self.magic, struct.pack('<I', self.version)]
    out.append(struct.pack('<QQ', *counts))
    for key, (kind, value) in entries:
      out += [string(key), struct.pack('<I', kind), _value(kind, value)]
    for (name, tensor), offset in zip(tensors, self._data()[1], strict=True):
      out += [string(name), struct.pack('<I', len(tensor.dims))]
      out.append(struct.pack(f'<{len(tensor.dims)}Q', *tensor.dims))
      out.append(struct.pack('<IQ', tensor.type, offset))
    header = b''.join(out)
    return header + bytes(-len(header) % self.alignment)

  def _data(self) -> tuple[bytes, list[int]]:
    """Returns the values of all tensors, and the offset of each tensor."""
    data, offsets = [], []
    size = 0
    for _, tensor in [*self.tensors.items(), *self.more_tensors]:
      padding = -size % self.alignment
      size += padding
      offsets.append(size if tensor.offset is None else tensor.offset)
      size += len(tensor.data)
      data += [bytes(padding), tensor.data]
    return b''.join(data), offsets

  def write(self, path) -> pathlib.Path:
    """Writes the file."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(self.bytes())
    return path


def string(text: str | bytes) -> bytes:
  """Returns a string as GGUF stores it."""
  raw = text.encode() if isinstance(text, str) else text
  return struct.pack('<Q', len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
  if kind == _ARRAY:
    inner, values = value
    parts = b''.join(_value(inner, v) for v in values)
    return struct.pack('<IQ', inner, len(values)) + parts
  if kind == _STRING:
    return string(value)
  return struct.pack(_FORMATS[kind], value)


@functools.cache
def nano_model() -> sentencepiece_model_pb2.ModelProto:
  """Returns the embedded model's tokenizer."""
  path = pathlib.Path(lm.__file__).parent / 'nano' / 'tokenizer.model'
  model = sentencepiece_model_pb2.ModelProto()
  model.ParseFromString(path.read_bytes())
  return model


def tokenizer(model=None) -> dict[str, tuple[int, Any]]:
  """Returns the metadata that llama.cpp writes for a SentencePiece model.

  It writes spaces in pieces of users' own, and calls UNK a control piece.
  """
  pieces = (model or nano_model()).pieces
  tokens = [
      p.piece.replace('\u2581', ' ') if p.type == p.USER_DEFINED else p.piece
      for p in pieces
  ]
  types = [p.CONTROL if p.type == p.UNKNOWN else p.type for p in pieces]
  scores = [p.score if p.type == p.NORMAL else -1000.0 for p in pieces]
  return {
      'tokenizer.ggml.model': (_STRING, 'llama'),
      'tokenizer.ggml.tokens': (_ARRAY, (_STRING, tokens)),
      'tokenizer.ggml.scores': (_ARRAY, (_F32, scores)),
      'tokenizer.ggml.token_type': (_ARRAY, (5, types)),
      'tokenizer.ggml.bos_token_id': (_U32, 2),
      'tokenizer.ggml.eos_token_id': (_U32, 1),
      'tokenizer.ggml.unknown_token_id': (_U32, 3),
      'tokenizer.ggml.padding_token_id': (_U32, 0),
      'tokenizer.ggml.add_bos_token': (_BOOL, True),
      'tokenizer.ggml.add_space_prefix': (_BOOL, False),
  }


def metadata(config) -> dict[str, tuple[int, Any]]:
  """Returns the metadata that llama.cpp writes for a config.json."""
  config = config.get('text_config', config)
  kind = 'gemma2' if config['model_type'] == 'gemma2' else 'gemma3'
  whole = {
      'context_length': 'max_position_embeddings',
      'embedding_length': 'hidden_size',
      'block_count': 'num_hidden_layers',
      'feed_forward_length': 'intermediate_size',
      'attention.head_count': 'num_attention_heads',
      'attention.head_count_kv': 'num_key_value_heads',
      'attention.key_length': 'head_dim',
      'attention.value_length': 'head_dim',
      'attention.sliding_window': 'sliding_window',
  }
  entries = {key: (_U32, config[field]) for key, field in whole.items()}
  entries['attention.layer_norm_rms_epsilon'] = (_F32, config['rms_norm_eps'])
  if kind == 'gemma2':
    caps = ('attn_logit_softcapping', 'final_logit_softcapping')
    entries |= {cap: (_F32, config[cap]) for cap in caps}
  else:
    entries['rope.freq_base'] = (_F32, 1e6)
    if (scaling := config.get('rope_scaling')) is not None:
      entries['rope.scaling.type'] = (_STRING, scaling['rope_type'])
      entries['rope.scaling.factor'] = (_F32, scaling['factor'])
  return {
      'general.architecture': (_STRING, kind),
      'general.type': (_STRING, 'model'),
      **{f'{kind}.{key}': entry for key, entry in entries.items()},
  }


def name_of(name: str) -> str:
  """Returns the GGUF name of a Hugging Face tensor."""
  module = name.removeprefix('model.').removesuffix('.weight')
  layer, block = '', module
  if module.startswith('layers.'):
    _, layer, block = module.split('.', 2)
  prefix = f'blk.{layer}.' if layer else ''
  return f'{prefix}{_NAMES[block]}.weight'


def stored(values: np.ndarray, kind: Type) -> np.ndarray:
  """Returns the bytes of values in a type, by rows; the rounding is crude.

  Only types with `quantize` in the gguf package are rounded to the nearest
  value. For others, every block has the bytes of its values' signs.
  """
  if kind == Type.F32:
    return np.ascontiguousarray(values, '<f4').view(np.uint8)
  if kind == Type.F16:
    return np.ascontiguousarray(values, '<f2').view(np.uint8)
  if kind in (Type.BF16, Type.Q4_0, Type.Q5_0, Type.Q8_0):
    return gguf.quantize(np.ascontiguousarray(values, np.float32), kind)
  length, size = gguf.GGML_QUANT_SIZES[kind]
  seed = int(np.abs(values).sum() * 256) % 2**32
  blocks = np.random.RandomState(seed).randint(
      0, 256, (*values.shape[:-1], values.shape[-1] // length, size)
  )
  blocks = blocks.astype(np.uint8)
  # The factors are half-precision numbers; random ones could be infinite.
  factor = np.frombuffer(np.float16(1 / 512).tobytes(), np.uint8)
  places = (208,) if kind == Type.Q6_K else (0, 2)
  for place in places:
    blocks[..., place : place + 2] = factor
  return blocks.reshape(*values.shape[:-1], -1)


def draft(config, kind: Type = Type.F32, *, seed=0, model=None) -> Draft:
  """Returns a file with the weights of `huggingface_folders.write`.

  Matrices are stored as `kind`, and norms as 1 + w in single precision.
  """
  tensors = {}
  for name, values in huggingface_folders.tensors(config, seed).items():
    form = kind
    if values.ndim == 1:
      values, form = values + 1, Type.F32
    raw = stored(values, form)
    tensors[name_of(name)] = Tensor(values.shape[::-1], form, raw.tobytes())
  return Draft({**metadata(config), **tokenizer(model)}, tensors)


def write(path, config, kind: Type = Type.F32, **kwargs) -> pathlib.Path:
  """Writes a model to a GGUF file."""
  return draft(config, kind, **kwargs).write(path)
