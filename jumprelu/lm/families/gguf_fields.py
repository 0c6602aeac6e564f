"""Metadata and names of tensors in GGUF files, for every family.

As in a config.json, a known entry is used, or must have the family's value, or
has no effect on activations; an unknown entry is a problem.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
import math
from typing import Any

import numpy as np

from jumprelu.lm import config as config_lib
from jumprelu.lm.families import family, huggingface_fields

# A field of `LmConfig` -> its entry, without the architecture's name.
SIZES = {
    'd_model': 'embedding_length',
    'ffw': 'feed_forward_length',
    'heads': 'attention.head_count',
    'kv_heads': 'attention.head_count_kv',
    'head_dim': 'attention.key_length',
    'layers': 'block_count',
    'window': 'attention.sliding_window',
    'context': 'context_length',
}
# The soft caps, for families that have them.
CAPS = {
    'attention_softcap': 'attn_logit_softcapping',
    'logits_softcap': 'final_logit_softcapping',
}
# Entries that some writers leave out, because llama.cpp has their values in its
# code. The scale of the rotary embedding applies to global layers only.
PATTERN = 'attention.sliding_window_pattern'
GLOBAL_BASE = 'rope.freq_base'
LOCAL_BASE = 'rope.freq_base_swa'
SCALING = 'rope.scaling.type'
_FACTOR = 'rope.scaling.factor'
_OPTIONAL = (PATTERN, GLOBAL_BASE, LOCAL_BASE, SCALING, _FACTOR)
# Entries that, if present, are equal to the size of a head.
_HEAD_SIZES = ('attention.value_length', 'rope.dimension_count')
# Numbers are in single precision.
_MAX_PATTERN = 1024
_FIXED = {'attention.layer_norm_rms_epsilon': float(np.float32(1e-6))}

# A module in Hugging Face's names, as in `Conversion.names` -> its GGUF name.
_MATRICES = {
    'embed_tokens': 'token_embd',
    'layers.{layer}.self_attn.q_proj': 'blk.{layer}.attn_q',
    'layers.{layer}.self_attn.k_proj': 'blk.{layer}.attn_k',
    'layers.{layer}.self_attn.v_proj': 'blk.{layer}.attn_v',
    'layers.{layer}.self_attn.o_proj': 'blk.{layer}.attn_output',
    'layers.{layer}.mlp.gate_proj': 'blk.{layer}.ffn_gate',
    'layers.{layer}.mlp.up_proj': 'blk.{layer}.ffn_up',
    'layers.{layer}.mlp.down_proj': 'blk.{layer}.ffn_down',
}
_NORMS = {
    'norm': 'output_norm',
    'layers.{layer}.input_layernorm': 'blk.{layer}.attn_norm',
    'layers.{layer}.post_attention_layernorm': (
        'blk.{layer}.post_attention_norm'
    ),
    'layers.{layer}.pre_feedforward_layernorm': 'blk.{layer}.ffn_norm',
    'layers.{layer}.post_feedforward_layernorm': 'blk.{layer}.post_ffw_norm',
    'layers.{layer}.self_attn.q_norm': 'blk.{layer}.attn_q_norm',
    'layers.{layer}.self_attn.k_norm': 'blk.{layer}.attn_k_norm',
}
EMBEDDING = 'token_embd.weight'


def tensor_name(name: str) -> str:
  """Returns the GGUF name of a tensor named as in `Conversion.names`."""
  module = name.removesuffix('.weight')
  return f'{(_MATRICES | _NORMS)[module]}.weight'


def is_gain(name: str) -> bool:
  """Returns whether GGUF stores 1 + w for a tensor w of Hugging Face."""
  return name.removesuffix('.weight') in _NORMS


def read(
    fields: Mapping[str, Any],
    vocab: int,
    *,
    title: str,
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    caps: Mapping[str, str],
    fixed: Mapping[str, Any],
) -> family.ReadFields:
  """Returns the arguments of `LmConfig` for the entries of an architecture.

  Args:
    fields: The entries, without the architecture's name.
    vocab: The number of rows of the embedding.
    title: The family's title.
    complete: As in `family.Orbax`, for missing entries.
    caps: The soft caps that the family has, as in `CAPS`.
    fixed: Entries that must have these values if they are present.
  """
  problems = list(_problems(fields, caps.values()))
  fixed = {**_FIXED, 'vocab_size': vocab, **fixed}
  problems += huggingface_fields.different(fields, fixed)
  known = {*SIZES.values(), *_HEAD_SIZES, *caps.values(), *fixed, *_OPTIONAL}
  problems += huggingface_fields.unknown(fields, known, title=title)
  if problems:
    return family.ReadFields({}, problems)
  sizes = {ours: fields[entry] for ours, entry in SIZES.items()}
  sizes['vocab'] = vocab
  values = {**complete(sizes), **sizes}
  values |= {ours: float(fields[entry]) for ours, entry in caps.items()}
  # GGUF stores gate and up projections in this layout, as Hugging Face does.
  values |= {**_read_optional(fields, values), 'transposed_gating': True}
  return family.ReadFields(values, [])


def _read_optional(
    fields: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the arguments of `LmConfig` that `_OPTIONAL` determines.

  Args:
    fields: The entries, without problems.
    values: The values of arguments without these entries.
  """
  result = {}
  local = values.get('local_rope', config_lib.Rope())
  if (base := fields.get(LOCAL_BASE)) is not None:
    result['local_rope'] = local._replace(base=int(base))
  rope = values.get('global_rope', config_lib.Rope())
  if (base := fields.get(GLOBAL_BASE)) is not None:
    rope = rope._replace(base=int(base))
  form = fields.get(SCALING, 'linear' if _FACTOR in fields else None)
  if form is not None:
    factor = fields.get(_FACTOR, 1.0) if form == 'linear' else 1.0
    rope = rope._replace(scale=float(factor))
  result['global_rope'] = rope
  pattern = fields.get(PATTERN)
  if isinstance(pattern, list):
    names = {True: config_lib.LOCAL, False: config_lib.GLOBAL}
    result['layer_pattern'] = config_lib.shortest_pattern(
        tuple(names[is_local] for is_local in pattern)
    )
  elif pattern is not None:
    local_layers = (config_lib.LOCAL,) * (pattern - 1)
    result['layer_pattern'] = (*local_layers, config_lib.GLOBAL)
  return result


def _problems(
    fields: Mapping[str, Any], caps: Collection[str]
) -> Iterator[str]:
  entries = SIZES.values()
  yield from _optional_problems(fields)
  yield from huggingface_fields.not_above_zero(fields, caps, whole=False)
  wrong = list(huggingface_fields.not_above_zero(fields, entries, whole=True))
  yield from wrong
  if wrong:
    return
  heads, kv_heads = (fields[SIZES[name]] for name in ('heads', 'kv_heads'))
  if heads % kv_heads:
    yield f'{SIZES["kv_heads"]} {kv_heads} does not divide {heads} heads'
  yield from huggingface_fields.odd(fields, SIZES['head_dim'])
  expected = {entry: fields[SIZES['head_dim']] for entry in _HEAD_SIZES}
  yield from huggingface_fields.different(fields, expected)
  pattern, layers = fields.get(PATTERN), fields[SIZES['layers']]
  if isinstance(pattern, list) and (
      len(pattern) != layers or not {*pattern} <= {True, False}
  ):
    yield f'{PATTERN} must list {layers} layers'


def _optional_problems(fields: Mapping[str, Any]) -> Iterator[str]:
  short = huggingface_fields.short
  for entry in (LOCAL_BASE, GLOBAL_BASE):
    base = fields.get(entry)
    if base is not None and not (type(base) in (int, float) and 0 < base < 1e9):
      yield f'{entry} is {short(base)}, wanted a number above 0'
    elif base is not None and base % 1:
      yield f'{entry} is {short(base)}, wanted a whole number'
  if fields.get(SCALING) not in (None, 'none', 'linear'):
    yield f"{SCALING} is {short(fields[SCALING])}, wanted 'none' or 'linear'"
  factor = fields.get(_FACTOR, 1.0)
  if not (type(factor) in (int, float) and 1 <= factor < math.inf):
    yield f'{_FACTOR} is {short(factor)}, wanted a number of at least 1'
  pattern = fields.get(PATTERN)
  if not isinstance(pattern, list | None) and not (
      type(pattern) is int and 0 < pattern <= _MAX_PATTERN
  ):
    yield (
        f'{PATTERN} is {short(pattern)}, wanted a list or a whole number from 1'
        f' to {_MAX_PATTERN}'
    )
