"""Blocks of the Gemma families: parameters, taps and their other names.

The families in this package have the same blocks: norms before and after
attention and MLP, grouped-query attention, and a gated MLP. Queries and keys
are normalised if `LmConfig.qk_norm` is set.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jumprelu.lm import config as config_lib
from jumprelu.lm import sites
from jumprelu.lm.families import family

# Arguments of the gemma package's TransformerConfig.
_TRANSFORMER: Mapping[str, bool] = {
    'use_post_attn_norm': True,
    'use_post_ffw_norm': True,
}

# The scale of the norm of queries, which distinguishes Gemma 3 from Gemma 2.
QUERY_NORM = 'layer/attn/_query_norm/scale'
_KEY_NORM = 'layer/attn/_key_norm/scale'
_EMBEDDING = 'embedder/input_embedding'

_SITE_OF_PATH: Mapping[tuple[str, ...], sites.Site] = {
    (): sites.Site.RESID_POST,
    ('post_ffw_norm',): sites.Site.MLP_OUT,
    ('pre_ffw_norm',): sites.Site.MLP_IN,
    ('attn', 'attn_vec_einsum'): sites.Site.ATTN_HEADS,
}


def _param_axes(config: config_lib.LmConfig) -> dict[str, family.Axes]:
  """Returns the logical axes of the parameters that are sharded."""
  return {
      _EMBEDDING: ('vocab', 'model'),
      'layer/attn/q_einsum/w': ('heads', 'model', None),
      'layer/attn/kv_einsum/w': (None, 'kv_heads', 'model', None),
      'layer/attn/qkv_einsum/w': (None, 'heads', 'model', None),
      'layer/attn/attn_vec_einsum/w': ('heads', None, 'model'),
      'layer/mlp/gating_einsum': (
          (None, 'ffw', 'model')
          if config.transposed_gating
          else (None, 'model', 'ffw')
      ),
      'layer/mlp/linear': ('ffw', 'model'),
  }


def _matrices(config: config_lib.LmConfig) -> family.Matrices:
  """Returns the sizes of a layer's matrices."""
  head = config.d_model * config.head_dim
  return family.Matrices(
      attention_inputs=head * (config.heads + 2 * config.kv_heads),
      attention_output=head * config.heads,
      mlp=3 * config.ffw * config.d_model,
  )


_HOOK_NAMES = {
    sites.Site.RESID_POST: family.HookNames(
        'blocks.{layer}.hook_resid_post', 'model.layers.{layer}.output'
    ),
    sites.Site.MLP_OUT: family.HookNames(
        'blocks.{layer}.hook_mlp_out',
        'model.layers.{layer}.post_feedforward_layernorm.output',
    ),
    # TransformerLens hooks the norm before its gain is applied, Hugging Face
    # after it.
    sites.Site.MLP_IN: family.HookNames(
        'blocks.{layer}.ln2.hook_normalized * blocks.{layer}.ln2.w',
        'model.layers.{layer}.pre_feedforward_layernorm.output',
    ),
    # Heads are concatenated: [head 0, head 1, ...].
    sites.Site.ATTN_HEADS: family.HookNames(
        'blocks.{layer}.attn.hook_z',
        'model.layers.{layer}.self_attn.o_proj.input',
    ),
}
_INPUT_GAIN_HOOK_NAMES = family.HookNames(
    'blocks.{layer}.ln2.hook_normalized',
    'model.layers.{layer}.pre_feedforward_layernorm.output'
    ' / (1 + model.layers.{layer}.pre_feedforward_layernorm.weight)',
)


# The norm's module -> its name in Hugging Face's files.
_NORMS = {
    'final_norm': 'norm',
    'layer/pre_attention_norm': 'layers.{layer}.input_layernorm',
    'layer/post_attention_norm': 'layers.{layer}.post_attention_layernorm',
    'layer/pre_ffw_norm': 'layers.{layer}.pre_feedforward_layernorm',
    'layer/post_ffw_norm': 'layers.{layer}.post_feedforward_layernorm',
}


def conversions(
    config: config_lib.LmConfig, *, spare_rows: int = 0
) -> dict[str, family.Conversion]:
  """Returns the conversions of Hugging Face's tensors.

  Args:
    config: The model's shapes.
    spare_rows: The number of rows after those of the vocabulary that the
      embedding in a file may have; they are not read.
  """
  return {
      key: family.Conversion(
          tuple(f'{name}.weight' for name in names),
          shape,
          combine,
          spare_rows if key == _EMBEDDING else 0,
      )
      for key, (names, shape, combine) in _table(config).items()
  }


def _table(
    config: config_lib.LmConfig,
) -> dict[str, tuple[tuple[str, ...], family.Shape, Callable[..., np.ndarray]]]:
  """Returns the names, shape and function of each tensor's conversion."""
  d, f, h = config.d_model, config.ffw, config.head_dim
  n, k = config.heads, config.kv_heads

  def per_head(w):  # [heads * head_dim, model] -> [heads, model, head_dim]
    return w.reshape(-1, h, d).transpose(0, 2, 1)

  def output(w):  # [model, heads * head_dim] -> [heads, head_dim, model]
    return w.T.reshape(n, h, d)

  def gating(gate, up):
    both = np.stack([gate, up])
    return both if config.transposed_gating else both.transpose(0, 2, 1)

  def stacked(*parts):
    return np.stack([per_head(part) for part in parts])

  layer = 'layers.{layer}.'
  query, key, value = (f'{layer}self_attn.{x}_proj' for x in 'qkv')
  gate_and_up = (f'{layer}mlp.gate_proj', f'{layer}mlp.up_proj')
  table = {
      _EMBEDDING: (
          ('embed_tokens',), (config.vocab, d), np.asarray
      ),
      'layer/attn/q_einsum/w': ((query,), (n * h, d), per_head),
      'layer/attn/kv_einsum/w': ((key, value), (k * h, d), stacked),
      # For models in which every head has its own keys and values.
      'layer/attn/qkv_einsum/w': ((query, key, value), (n * h, d), stacked),
      'layer/attn/attn_vec_einsum/w': (
          (f'{layer}self_attn.o_proj',), (d, n * h), output
      ),
      'layer/mlp/gating_einsum': (gate_and_up, (f, d), gating),
      'layer/mlp/linear': ((f'{layer}mlp.down_proj',), (d, f), np.transpose),
  } | {
      # Both libraries compute x * (1 + scale).
      f'{ours}/scale': ((theirs,), (d,), np.asarray)
      for ours, theirs in _NORMS.items()
  }  # fmt: skip
  if config.qk_norm:
    # All heads share one gain.
    table[QUERY_NORM] = ((f'{layer}self_attn.q_norm',), (h,), np.asarray)
    table[_KEY_NORM] = ((f'{layer}self_attn.k_norm',), (h,), np.asarray)
  return table


# The arguments of `family.Family` that the families share.
SHARED: Mapping[str, Any] = {
    'transformer': _TRANSFORMER,
    'site_of_path': _SITE_OF_PATH,
    'param_axes': _param_axes,
    'matrices': _matrices,
    'hook_names': _HOOK_NAMES,
    'input_gain_hook_names': _INPUT_GAIN_HOOK_NAMES,
    'turn_pieces': ('<start_of_turn>', '<end_of_turn>'),
}
