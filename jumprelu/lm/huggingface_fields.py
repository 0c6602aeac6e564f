"""The fields of Gemma 2's config.json in Hugging Face's format.

Every field is in one table: `SIZES`, `CAPS` and a few more are used, those in
`_FIXED` must have Gemma 2's value, those in `_IRRELEVANT` have no effect on
activations. Any other field is refused, because it may name a change of the
forward pass which would otherwise be ignored without a word.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# A field of `LmConfig` -> its name in config.json.
SIZES = {
    'vocab': 'vocab_size',
    'd_model': 'hidden_size',
    'ffw': 'intermediate_size',
    'heads': 'num_attention_heads',
    'kv_heads': 'num_key_value_heads',
    'head_dim': 'head_dim',
    'layers': 'num_hidden_layers',
    'window': 'sliding_window',
    'context': 'max_position_embeddings',
}
CAPS = {
    'attention_softcap': 'attn_logit_softcapping',
    'logits_softcap': 'final_logit_softcapping',
}
# The other fields that are used, each with a check of its own.
_USED = (
    'model_type',
    'query_pre_attn_scalar',
    'layer_types',
    'sliding_window_size',
)
# Gemma 2 besides its sizes: a file without the field, or with null, means this.
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
# The rotary embedding has objects of its own: `rope_scaling` in older files,
# `rope_parameters` in newer ones, where there may be one for each layer type.
_ROPES = ('rope_parameters', 'rope_scaling')
_FIXED_ROPE = {
    'rope_theta': 10000.0,
    'rope_type': 'default',
    'type': 'default',
    'partial_rotary_factor': 1.0,
}
_ALTERNATING = ('sliding_attention', 'full_attention')
_IRRELEVANT = frozenset(
    (
        # Where the file comes from.
        '_commit_hash',
        '_name_or_path',
        'architectures',
        'name_or_path',
        'transformers_version',
        'unsloth_fixed',
        'unsloth_version',
        # The type and the order in which weights are stored and computed.
        '_attn_implementation',
        '_attn_implementation_autoset',
        'attn_implementation',
        'chunk_size_feed_forward',
        'dtype',
        'pretraining_tp',
        'torch_dtype',
        'use_bfloat16',
        # Training alone.
        'attention_dropout',
        'gradient_checkpointing',
        'initializer_range',
        # Tokens, which the tokenizer file decides.
        'bos_token_id',
        'decoder_start_token_id',
        'eos_token_id',
        'pad_token_id',
        'prefix',
        'sep_token_id',
        'tokenizer_class',
        # Generating, and the form of outputs.
        'cache_implementation',
        'do_sample',
        'is_decoder',
        'max_length',
        'output_attentions',
        'output_hidden_states',
        'return_dict',
        'temperature',
        'tf_legacy_loss',
        'tie_encoder_decoder',
        'top_k',
        'top_p',
        'torchscript',
        'use_cache',
        # Tasks with a head of their own.
        'finetuning_task',
        'id2label',
        'label2id',
        'num_labels',
        'problem_type',
        'task_specific_params',
    )
)
_KNOWN = {
    *SIZES.values(),
    *CAPS.values(),
    *_USED,
    *_FIXED,
    *_ROPES,
    *_IRRELEVANT,
}


def problems(fields: Mapping[str, Any]) -> list[str]:
  """Returns the differences between a config.json and Gemma 2's."""
  if fields.get('model_type') != 'gemma2':
    return [f"model_type is {fields.get('model_type')!r}, wanted 'gemma2'"]
  unsized = list(_unsized(fields))
  return [
      *_unfixed(fields, _FIXED),
      *_rotated(fields),
      *_uncapped(fields),
      *unsized,
      *([] if unsized else _inconsistent(fields)),
      *_unknown(fields, _KNOWN),
  ]


def _unfixed(fields, fixed, prefix=''):
  for field, wanted in fixed.items():
    if fields.get(field) not in (None, wanted):
      yield f'{prefix}{field} is {_short(fields[field])}, wanted {wanted!r}'


def _unknown(fields, known, prefix=''):
  for field in sorted(set(fields) - set(known)):
    yield (
        f'{prefix}{field} ({_short(fields[field])}) is unknown in Gemma 2 and'
        ' may change its activations'
    )


def _rotated(fields) -> Iterator[str]:
  """Yields every difference of the rotary embedding's objects."""
  for name in _ROPES:
    rope = fields.get(name)
    if rope is None:
      continue
    if not isinstance(rope, dict):
      yield f'{name} is {_short(rope)}, wanted an object'
      continue
    flat = {k: v for k, v in rope.items() if k not in _ALTERNATING}
    objects = {name: flat} | {
        f'{name}.{k}': v for k, v in rope.items() if k in _ALTERNATING
    }
    for path, each in objects.items():
      if not isinstance(each, dict):
        yield f'{path} is {_short(each)}, wanted an object'
        continue
      yield from _unfixed(each, _FIXED_ROPE, f'{path}.')
      yield from _unknown(each, _FIXED_ROPE, f'{path}.')


def _uncapped(fields):
  for field in CAPS.values():
    if type(fields.get(field)) not in (int, float) or not fields[field] > 0:
      yield f'{field} is {_short(fields.get(field))}, wanted a number above 0'


def _unsized(fields):
  for field in SIZES.values():
    if type(fields.get(field)) is not int or fields[field] < 1:
      yield (
          f'{field} is {_short(fields.get(field))}, wanted a whole number'
          ' above 0'
      )


def _inconsistent(fields):
  """Yields sizes that contradict each other."""
  heads, kv_heads = fields['num_attention_heads'], fields['num_key_value_heads']
  if heads % kv_heads:
    yield f'num_key_value_heads {kv_heads} does not divide {heads} heads'
  scales = fields['head_dim'], fields['hidden_size'] / heads
  if fields.get('query_pre_attn_scalar') not in scales:
    yield (
        f'query_pre_attn_scalar is {_short(fields.get("query_pre_attn_scalar"))},'
        f' wanted head_dim ({scales[0]}) or hidden_size / num_attention_heads'
        f' ({scales[1]:g})'
    )
  window = fields['sliding_window']
  if fields.get('sliding_window_size') not in (None, window):
    yield (
        f'sliding_window_size is {_short(fields["sliding_window_size"])},'
        f' wanted sliding_window ({window})'
    )
  kinds = fields.get('layer_types')
  layers = fields['num_hidden_layers']
  if kinds is not None and kinds != [
      _ALTERNATING[i % 2] for i in range(layers)
  ]:
    yield (
        f'layer_types must be {layers}, alternating {" and ".join(_ALTERNATING)}'
    )


def _short(value):
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'
