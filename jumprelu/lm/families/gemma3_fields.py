"""The fields of a Gemma 3's config.json, in both generations of transformers.

Models with images have a `text_config` of their own, which omits the fields
that have the defaults of transformers.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jumprelu.lm import config as config_lib
from jumprelu.lm.families import family, huggingface_fields

_TITLE = 'Gemma 3'

# The rows of the embedding, one per piece of the tokenizer. Files of models
# with images have additional rows of random values, which belong to no piece
# and would change the softmax.
VOCAB = 262_144
SPARE_ROWS = 64

# The defaults of transformers' Gemma3TextConfig.
_DEFAULTS = {
    'vocab_size': VOCAB + SPARE_ROWS,
    'hidden_size': 2304,
    'intermediate_size': 9216,
    'num_hidden_layers': 26,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'max_position_embeddings': 131_072,
    'query_pre_attn_scalar': 256,
    'sliding_window': 4096,
}
_PATTERN = 6
_PATTERN_FIELDS = ('sliding_window_pattern', '_sliding_window_pattern')
_BASES = {config_lib.LOCAL: 10_000, config_lib.GLOBAL: 1_000_000}

# The values that every Gemma 3 has; a missing field or null is equivalent.
_FIXED = {
    'tie_word_embeddings': True,
    'attention_bias': False,
    'hidden_activation': 'gelu_pytorch_tanh',
    'hidden_act': 'gelu_pytorch_tanh',
    'rms_norm_eps': 1e-6,
    'partial_rotary_factor': 1.0,
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'add_cross_attention': False,
    'cross_attention_hidden_size': None,
    'is_encoder_decoder': False,
    'pruned_heads': {},
    'quantization_config': None,
}
# Fields of the whole model that concern only images, if it has any.
_IMAGES = (
    'boi_token_id',
    'boi_token_index',
    'eoi_token_id',
    'eoi_token_index',
    'image_token_id',
    'image_token_index',
    'mm_tokens_per_image',
    'vision_config',
)
_ROPES = ('rope_theta', 'rope_local_base_freq', 'rope_scaling')
_USED = (
    'model_type',
    'layer_types',
    'query_pre_attn_scalar',
    'rope_parameters',
    'sliding_window_size',
    'use_bidirectional_attention',
    *_PATTERN_FIELDS,
    *_ROPES,
)
_KNOWN = {
    *huggingface_fields.SIZES.values(),
    *huggingface_fields.IRRELEVANT,
    *_USED,
    *_FIXED,
}
_ROPE_FIELDS = (
    'factor',
    'partial_rotary_factor',
    'rope_theta',
    'rope_type',
    'type',
)


# Larger bases are those of no model, and overflow 32 bits.
_MAX_BASE = 1e9


class _Ropes(NamedTuple):
  """The rotary embeddings by kind of layer, and the fields' problems."""

  by_kind: dict[str, config_lib.Rope]
  problems: list[str]


def read(fields: Mapping[str, Any]) -> family.ReadFields:
  """Returns the arguments of `LmConfig` for a config.json's fields."""
  text, problems = fields, []
  if 'text_config' in fields or fields.get('model_type') == 'gemma3':
    text = fields.get('text_config')
    if not isinstance(text, Mapping):
      short = huggingface_fields.short(text)
      return family.ReadFields(
          {}, [f'text_config is {short}, wanted an object']
      )
    problems += _outer_problems(fields)
  text = {**_DEFAULTS, **text}
  ropes = _read_ropes(text)
  problems += [*_problems(text), *ropes.problems]
  if problems:
    return family.ReadFields({}, problems)
  values = {
      ours: text[field] for ours, field in huggingface_fields.SIZES.items()
  }
  if values['vocab'] == VOCAB + SPARE_ROWS:
    values['vocab'] = VOCAB
  return family.ReadFields(
      values
      | {
          'layer_pattern': _layer_pattern(text),
          'attention_softcap': None,
          'logits_softcap': None,
          'qk_norm': True,
          'local_rope': ropes.by_kind[config_lib.LOCAL],
          'global_rope': ropes.by_kind[config_lib.GLOBAL],
          'query_scale_by_model': (
              text['query_pre_attn_scalar'] != text['head_dim']
          ),
          'transposed_gating': True,
      },
      [],
  )


def _outer_problems(fields: Mapping[str, Any]) -> Iterator[str]:
  """Yields the problems of fields beside `text_config`."""
  fixed = {
      name: _FIXED[name]
      for name in ('tie_word_embeddings', 'quantization_config')
  }
  yield from huggingface_fields.different(fields, fixed)
  known = {'model_type', 'text_config', *_IMAGES, *fixed}
  known |= huggingface_fields.IRRELEVANT
  yield from huggingface_fields.unknown(fields, known, title=_TITLE)


def _problems(text: Mapping[str, Any]) -> Iterator[str]:
  sizes = huggingface_fields.SIZES.values()
  if text.get('use_bidirectional_attention'):
    yield (
        'use_bidirectional_attention is'
        f' {huggingface_fields.short(text["use_bidirectional_attention"])},'
        ' as in EmbeddingGemma, which is not supported'
    )
  yield from huggingface_fields.different(text, _FIXED)
  wrong = list(huggingface_fields.not_above_zero(text, sizes, whole=True))
  yield from wrong
  if not wrong:
    yield from huggingface_fields.inconsistent(text)
    yield from _pattern_problems(text)
  yield from huggingface_fields.unknown(text, _KNOWN, title=_TITLE)


def _pattern_problems(text: Mapping[str, Any]) -> Iterator[str]:
  types, layers = text.get('layer_types'), text['num_hidden_layers']
  kinds = tuple(huggingface_fields.LAYER_TYPES.values())
  if types is not None and (
      not isinstance(types, list)
      or len(types) != layers
      or any(kind not in kinds for kind in types)
  ):
    yield f'layer_types must list {layers} layers of {" or ".join(kinds)}'
  names = [name for name in _PATTERN_FIELDS if text.get(name) is not None]
  yield from huggingface_fields.not_above_zero(text, names, whole=True)


def _layer_pattern(text: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the shortest pattern that the layers repeat."""
  types = text.get('layer_types')
  if types is None:
    sizes = [text[name] for name in _PATTERN_FIELDS if text.get(name)]
    local = (sizes[0] if sizes else _PATTERN) - 1
    return (config_lib.LOCAL,) * local + (config_lib.GLOBAL,)
  names = {name: kind for kind, name in huggingface_fields.LAYER_TYPES.items()}
  return config_lib.shortest_pattern(tuple(names[name] for name in types))


def _read_ropes(text: Mapping[str, Any]) -> _Ropes:
  """Returns the rotary embeddings; `rope_parameters` precedes older fields."""
  parameters = text.get('rope_parameters')
  if parameters is None:
    parameters = {}
  scaling = text.get('rope_scaling')
  problems = [
      f'{name} is {huggingface_fields.short(value)}, wanted an object'
      for name, value in (
          ('rope_parameters', parameters),
          ('rope_scaling', scaling),
      )
      if value is not None and not isinstance(value, Mapping)
  ]
  if problems:
    return _Ropes({}, problems)
  bases = {
      config_lib.LOCAL: text.get('rope_local_base_freq'),
      config_lib.GLOBAL: text.get('rope_theta'),
  }
  types = huggingface_fields.LAYER_TYPES
  problems += huggingface_fields.unknown(
      parameters, types.values(), title=_TITLE, prefix='rope_parameters.'
  )
  by_kind = {}
  for kind, name in types.items():
    part = parameters.get(name)
    part = {} if part is None else part
    path = f'rope_parameters.{name}'
    if not isinstance(part, Mapping):
      short = huggingface_fields.short(part)
      problems.append(f'{path} is {short}, wanted an object')
      continue
    if kind == config_lib.GLOBAL and scaling is not None:
      part, path = {**part, **scaling}, 'rope_scaling'
    base = bases[kind] if bases[kind] is not None else _BASES[kind]
    values = {'rope_theta': base, 'rope_type': part.get('type'), **part}
    rope = _rope(values, f'{path}.', problems)
    if rope is not None:
      by_kind[kind] = rope
  return _Ropes(by_kind, problems)


def _rope(
    values: Mapping[str, Any], prefix: str, problems: list[str]
) -> config_lib.Rope | None:
  """Returns a rotary embedding; None after adding to `problems`."""
  before = len(problems)
  problems += huggingface_fields.unknown(
      values, _ROPE_FIELDS, title=_TITLE, prefix=prefix
  )
  problems += huggingface_fields.different(
      values, {'partial_rotary_factor': 1.0}, prefix
  )
  short = huggingface_fields.short
  form, base = values['rope_type'] or 'default', values['rope_theta']
  factor = values.get('factor', 1.0) if form == 'linear' else 1.0
  if form not in ('default', 'linear'):
    problems.append(
        f"{prefix}rope_type is {short(form)}, wanted 'default' or 'linear'"
    )
  if type(base) not in (int, float) or not 0 < base < _MAX_BASE or base % 1:
    problems.append(
        f'{prefix}rope_theta is {short(base)}, wanted a whole number above 0'
        f' and below {_MAX_BASE:g}'
    )
  if type(factor) not in (int, float) or not 1 <= factor < _MAX_BASE:
    problems.append(f'{prefix}factor is {short(factor)}, wanted at least 1')
  if len(problems) > before:
    return None
  return config_lib.Rope(int(base), float(factor))
