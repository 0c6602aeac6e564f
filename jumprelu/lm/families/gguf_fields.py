"""Metadata and names of tensors in GGUF files, for every family.

As in a config.json, a known entry is used, or must have the family's value, or
has no effect on activations; an unknown entry is a problem.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

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
# Entries that, if present, are equal to the size of a head.
_HEAD_SIZES = ('attention.value_length', 'rope.dimension_count')
# Numbers are in single precision.
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
    used: tuple[str, ...] = (),
) -> family.ReadFields:
  """Returns the arguments of `LmConfig` for the entries of an architecture.

  Args:
    fields: The entries, without the architecture's name.
    vocab: The number of rows of the embedding.
    title: The family's title.
    complete: As in `family.Orbax`.
    caps: The soft caps that the family has, as in `CAPS`.
    fixed: Entries that must have these values if they are present.
    used: Other entries, which the caller reads.
  """
  problems = list(_problems(fields, caps.values()))
  fixed = _FIXED | {'vocab_size': vocab} | fixed
  problems += huggingface_fields.different(fields, fixed)
  known = {*SIZES.values(), *_HEAD_SIZES, *caps.values(), *fixed, *used}
  problems += huggingface_fields.unknown(fields, known, title=title)
  if problems:
    return family.ReadFields({}, problems)
  sizes = {ours: fields[entry] for ours, entry in SIZES.items()}
  sizes['vocab'] = vocab
  values = {ours: float(fields[entry]) for ours, entry in caps.items()}
  # GGUF stores gate and up projections in this layout, as Hugging Face does.
  values |= {**complete(sizes), **sizes, 'transposed_gating': True}
  return family.ReadFields(values, [])


def _problems(fields: Mapping[str, Any], caps: Any) -> Iterator[str]:
  entries = SIZES.values()
  yield from huggingface_fields.not_above_zero(fields, caps, whole=False)
  wrong = list(huggingface_fields.not_above_zero(fields, entries, whole=True))
  yield from wrong
  if wrong:
    return
  heads, kv_heads = (fields[SIZES[name]] for name in ('heads', 'kv_heads'))
  if heads % kv_heads:
    yield f'{SIZES["kv_heads"]} {kv_heads} does not divide {heads} heads'
  size = fields[SIZES['head_dim']]
  expected = dict.fromkeys(_HEAD_SIZES, size)
  yield from huggingface_fields.different(fields, expected)
