"""Gemma 2 (arXiv 2408.00118): local and global layers, and two soft caps."""

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import Any

from jumprelu.lm import config as config_lib
from jumprelu.lm.families import (
    family,
    gemma_blocks,
    gguf_fields,
    huggingface_fields,
)

_NAME = 'gemma2'
_TITLE = 'Gemma 2'
_LAYER_PATTERN = (config_lib.LOCAL, config_lib.GLOBAL)

# The rows of the embedding in the gemma package and on Kaggle. Hugging Face's
# files have only the tokenizer's 256,000 rows, and a loaded model has as many
# rows as its file. The 128 additional rows belong to no token but are part of
# the softmax: each row of zeros adds exp(0) to the sum. A model's losses may
# therefore differ slightly between the two files.
_VOCAB = 256_128

_2B = config_lib.LmConfig(
    name='gemma2_2b',
    vocab=_VOCAB,
    d_model=2304,
    ffw=9216,
    heads=8,
    kv_heads=4,
    head_dim=256,
    layers=26,
)
_9B = config_lib.LmConfig(
    name='gemma2_9b',
    vocab=_VOCAB,
    d_model=3584,
    ffw=14336,
    heads=16,
    kv_heads=8,
    head_dim=256,
    layers=42,
    transposed_gating=True,
)
_27B = config_lib.LmConfig(
    name='gemma2_27b',
    vocab=_VOCAB,
    d_model=4608,
    ffw=36864,
    heads=32,
    kv_heads=16,
    head_dim=128,
    layers=46,
    query_scale_by_model=True,
    transposed_gating=True,
)
# The embedded model, trained by `experiments/nano`.
_NANO = config_lib.LmConfig(
    name='gemma2_nano',
    vocab=4096,
    d_model=128,
    ffw=512,
    heads=4,
    kv_heads=2,
    head_dim=32,
    layers=4,
    window=64,
    context=256,
)
_MODELS = (
    _NANO,
    *(
        dataclasses.replace(config, name=config.name + suffix)
        for config in (_2B, _9B, _27B)
        for suffix in ('', '_it')
    ),
)


def _model_name(name: str) -> str | None:
  """Returns 'gemma2_2b_it' for 'google/gemma-2-2b-it'; None for other names."""
  match = re.fullmatch(r'(?:google/)?gemma-2-(2b|9b|27b)(-it)?', name)
  return f'gemma2_{match[1]}{"_it" if match[2] else ""}' if match else None


def _missing_weights(name: str) -> str:
  """Returns the part of an error that names the files to fetch."""
  size = name.removeprefix('gemma2_').replace('_', '-')
  return (
      f'accept the licence, then put there the files of google/gemma-2-{size}'
      ' from Hugging Face (config.json, *.safetensors, tokenizer.model) or of'
      f' google/gemma-2/flax/gemma2-{size} from Kaggle'
  )


# The soft caps: a field of `LmConfig` -> its name in config.json.
_CAPS = {
    'attention_softcap': 'attn_logit_softcapping',
    'logits_softcap': 'final_logit_softcapping',
}
# Other fields of config.json that are used, each with a check of its own.
_USED = (
    'model_type',
    'query_pre_attn_scalar',
    'layer_types',
    'sliding_window_size',
)
# The values that every Gemma 2 has; a missing field or null is equivalent.
_FIXED = {
    'tie_word_embeddings': True,
    'attention_bias': False,
    'hidden_activation': 'gelu_pytorch_tanh',
    'hidden_act': 'gelu_pytorch_tanh',
    'rms_norm_eps': 1e-6,
    'rope_theta': 10000.0,
    'partial_rotary_factor': 1.0,
    'sliding_window_pattern': 2,
    'use_bidirectional_attention': False,
    'add_cross_attention': False,
    'cross_attention_hidden_size': None,
    'is_encoder_decoder': False,
    'pruned_heads': {},
    'quantization_config': None,
}
# The objects that describe the rotary embedding: `rope_scaling` in older files,
# `rope_parameters` in newer ones, which may hold an object per layer type.
_ROPES = ('rope_parameters', 'rope_scaling')
_FIXED_ROPE = {
    'rope_theta': 10000.0,
    'rope_type': 'default',
    'type': 'default',
    'partial_rotary_factor': 1.0,
}
_KNOWN = {
    *huggingface_fields.SIZES.values(),
    *huggingface_fields.IRRELEVANT,
    *_CAPS.values(),
    *_USED,
    *_FIXED,
    *_ROPES,
}


def _rope_problems(fields: Mapping[str, Any]) -> Iterator[str]:
  """Yields a message per difference from Gemma 2's rotary embedding."""
  types = huggingface_fields.LAYER_TYPES.values()
  for name in _ROPES:
    rope = fields.get(name)
    if rope is None:
      continue
    if not isinstance(rope, dict):
      text = huggingface_fields.short(rope)
      yield f'{name} is {text}, wanted an object'
      continue
    by_type = {f'{name}.{k}': v for k, v in rope.items() if k in types}
    flat = {k: v for k, v in rope.items() if k not in types}
    for path, part in {name: flat, **by_type}.items():
      if not isinstance(part, dict):
        text = huggingface_fields.short(part)
        yield f'{path} is {text}, wanted an object'
        continue
      yield from huggingface_fields.different(part, _FIXED_ROPE, f'{path}.')
      yield from huggingface_fields.unknown(
          part, _FIXED_ROPE, title=_TITLE, prefix=f'{path}.'
      )


def _problems(fields: Mapping[str, Any]) -> Iterator[str]:
  sizes = huggingface_fields.SIZES.values()
  yield from huggingface_fields.different(fields, _FIXED)
  yield from _rope_problems(fields)
  yield from huggingface_fields.not_above_zero(
      fields, _CAPS.values(), whole=False
  )
  wrong = list(huggingface_fields.not_above_zero(fields, sizes, whole=True))
  yield from wrong
  if not wrong:
    yield from huggingface_fields.inconsistent(fields)
    yield from huggingface_fields.other_layer_types(fields, _LAYER_PATTERN)
  yield from huggingface_fields.unknown(fields, _KNOWN, title=_TITLE)


def _read_fields(fields: Mapping[str, Any]) -> family.ReadFields:
  problems = list(_problems(fields))
  if problems:
    return family.ReadFields({}, problems)
  sizes = huggingface_fields.SIZES.items()
  values = {ours: fields[field] for ours, field in sizes}
  values |= {ours: float(fields[field]) for ours, field in _CAPS.items()}
  return family.ReadFields(
      values
      | {
          'layer_pattern': _LAYER_PATTERN,
          'query_scale_by_model': (
              fields['query_pre_attn_scalar'] != fields['head_dim']
          ),
          # Hugging Face stores gate and up projections in this layout, so that
          # loading needs no transposed copy.
          'transposed_gating': True,
      },
      [],
  )


def _complete(sizes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arguments of `LmConfig` that shapes do not determine.

  Window, soft caps and context keep the defaults of `LmConfig`, which all
  released Gemma 2 models share. Queries are scaled as in the 27B if the shapes
  are those of the 27B.
  """
  names = ('d_model', 'heads', 'head_dim')
  large = all(sizes[name] == getattr(_27B, name) for name in names)
  return {'query_scale_by_model': large, 'layer_pattern': _LAYER_PATTERN}


def _read_gguf(fields: Mapping[str, Any], vocab: int) -> family.ReadFields:
  return gguf_fields.read(
      fields,
      vocab,
      title=_TITLE,
      complete=_complete,
      caps=gguf_fields.CAPS,
      fixed={
          gguf_fields.PATTERN: 2,
          gguf_fields.GLOBAL_BASE: 10000.0,
          gguf_fields.LOCAL_BASE: 10000.0,
          gguf_fields.SCALING: 'none',
      },
  )


FAMILY = family.Family(
    name=_NAME,
    title=_TITLE,
    models=_MODELS,
    model_name=_model_name,
    missing_weights=_missing_weights,
    **gemma_blocks.SHARED,
    special_ids=family.SpecialIds(
        pad=0, eos=1, bos=2, unk=3, start_of_turn=106, end_of_turn=107
    ),
    huggingface=family.HuggingFace(
        model_classes={'gemma2': 'Gemma2ForCausalLM'},
        read_fields=_read_fields,
        conversions=gemma_blocks.conversions,
    ),
    orbax=family.Orbax(
        present=(),
        absent=(gemma_blocks.QUERY_NORM.replace('layer/', 'layer_0/'),),
        complete=_complete,
    ),
    gguf=family.Gguf(architecture='gemma2', read_fields=_read_gguf),
)
