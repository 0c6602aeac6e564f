"""Checks of the fields in Hugging Face's config.json, for every family.

A known field is used, or must have the family's value, or has no effect on
activations. An unknown field is a problem, because it may describe a change of
the forward pass, which would otherwise be ignored silently. Each check yields
one message per problem.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jumprelu.lm import config as config_lib

# A kind of layer -> its name in `layer_types` and `rope_parameters`.
LAYER_TYPES = {
    config_lib.LOCAL: 'sliding_attention',
    config_lib.GLOBAL: 'full_attention',
}

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

# Sizes above these are refused before they are used, because a list of all
# layers would take hours and gigabytes.
_LAYERS = (
    'num_hidden_layers',
    'block_count',
    'sliding_window_pattern',
    '_sliding_window_pattern',
)
_MAX_LAYERS = 1000
_MAX_SIZE = 2**31 - 1

# Fields that have no effect on activations, in any family.
IRRELEVANT = frozenset(
    (
        # The origin of the file.
        '_commit_hash',
        '_name_or_path',
        'architectures',
        'name_or_path',
        'transformers_version',
        'unsloth_fixed',
        'unsloth_version',
        # Dtypes and implementations, which change only rounding and speed.
        '_attn_implementation',
        '_attn_implementation_autoset',
        'attn_implementation',
        'chunk_size_feed_forward',
        'dtype',
        'pretraining_tp',
        'torch_dtype',
        'use_bfloat16',
        # Only for training.
        'attention_dropout',
        'gradient_checkpointing',
        'initializer_range',
        # Special tokens, which come from the tokenizer file instead.
        'bos_token_id',
        'decoder_start_token_id',
        'eos_token_id',
        'pad_token_id',
        'prefix',
        'sep_token_id',
        'tokenizer_class',
        # Generation, and the format of outputs.
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
        # Tasks that add a head to the model.
        'finetuning_task',
        'id2label',
        'label2id',
        'num_labels',
        'problem_type',
        'task_specific_params',
    )
)


def different(
    fields: Mapping[str, Any], fixed: Mapping[str, Any], prefix: str = ''
) -> Iterator[str]:
  """Yields a message for each field whose value is not that of `fixed`.

  Missing fields and null are accepted. `prefix` is written before field names.
  """
  for field, expected in fixed.items():
    if fields.get(field) not in (None, expected):
      yield (f'{prefix}{field} is {short(fields[field])}, wanted {expected!r}')


def unknown(
    fields: Mapping[str, Any],
    known: Collection[str],
    *,
    title: str,
    prefix: str = '',
) -> Iterator[str]:
  """Yields a message for each field that is not in `known`."""
  for field in sorted(set(fields) - set(known)):
    yield (
        f'{prefix}{field} ({short(fields[field])}) is unknown in {title} and'
        ' may change its activations'
    )


def not_above_zero(
    fields: Mapping[str, Any], names: Collection[str], *, whole: bool
) -> Iterator[str]:
  """Yields a message for each field of `names` that is not above 0.

  Missing fields, other types and numbers that no model has are problems too;
  `whole` accepts only `int`.
  """
  for field in names:
    value: Any = fields.get(field)
    largest = _MAX_LAYERS if field in _LAYERS else _MAX_SIZE
    if type(value) not in ((int,) if whole else (int, float)) or not value > 0:
      kind = 'a whole number' if whole else 'a number'
      yield f'{field} is {short(value)}, wanted {kind} above 0'
    elif value > largest:
      yield f'{field} is {short(value)}, wanted at most {largest:,}'


def inconsistent(fields: Mapping[str, Any]) -> Iterator[str]:
  """Yields a message for each contradiction between fields.

  The fields in `SIZES` must already be checked to be whole numbers above 0.
  """
  heads, kv_heads = fields['num_attention_heads'], fields['num_key_value_heads']
  if heads % kv_heads:
    yield f'num_key_value_heads {kv_heads} does not divide {heads} heads'
  yield from odd(fields, 'head_dim')
  scale = fields.get('query_pre_attn_scalar')
  expected = fields['head_dim'], fields['hidden_size'] / heads
  if scale not in expected:
    yield (
        f'query_pre_attn_scalar is {short(scale)}, wanted head_dim'
        f' ({expected[0]}) or hidden_size / num_attention_heads'
        f' ({expected[1]:g})'
    )
  window = fields['sliding_window']
  if fields.get('sliding_window_size') not in (None, window):
    yield (
        f'sliding_window_size is {short(fields["sliding_window_size"])},'
        f' wanted sliding_window ({window})'
    )


def odd(fields: Mapping[str, Any], name: str) -> Iterator[str]:
  """Yields a message if a size is odd; rotary embeddings rotate pairs."""
  if fields[name] % 2:
    yield f'{name} is {fields[name]}, wanted an even number'


def other_layer_types(
    fields: Mapping[str, Any], layer_pattern: tuple[str, ...]
) -> Iterator[str]:
  """Yields a message if `layer_types` does not repeat the pattern."""
  types, layers = fields.get('layer_types'), fields['num_hidden_layers']
  pattern = [LAYER_TYPES[kind] for kind in layer_pattern]
  if types is not None and types != [
      pattern[i % len(pattern)] for i in range(layers)
  ]:
    yield (
        f'layer_types must list {layers} layers that repeat'
        f' {", ".join(pattern)}'
    )


def short(value: Any) -> str:
  """Returns the `repr` of a value, shortened to 60 characters."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'
