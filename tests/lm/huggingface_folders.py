"""Tiny random Gemma 2 and 3 models in Hugging Face folders, equal on every machine.

Weights are random integers divided by a power of two. `RandomState` never
changes and no weight is rounded, so goldens computed from these models are
valid on every machine.
"""

import json
import pathlib
import shutil

import numpy as np
from safetensors import numpy as safetensors

from jumprelu import lm

_SIZES = {
    'vocab_size': 48,
    'hidden_size': 16,
    'intermediate_size': 32,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 8,
    'num_hidden_layers': 3,
    'sliding_window': 5,
    'max_position_embeddings': 64,
}
_COMMON = {
    'architectures': ['Gemma2ForCausalLM'],
    'model_type': 'gemma2',
    'attn_logit_softcapping': 50.0,
    'final_logit_softcapping': 30.0,
    'query_pre_attn_scalar': 8,
    'hidden_activation': 'gelu_pytorch_tanh',
    'rms_norm_eps': 1e-6,
    'attention_bias': False,
    'tie_word_embeddings': True,
    'rope_theta': 10000.0,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'bos_token_id': 2,
}
# By the Gemma 2 that each resembles: in the 9B the heads together are
# wider than the model, and the 27B scales queries by the model's width over its
# heads. In the last, which resembles none, every head has its own keys and
# values.
CONFIGS = {
    '2b': _COMMON | _SIZES | {'head_dim': 4, 'query_pre_attn_scalar': 4},
    '9b': _COMMON | _SIZES | {'sliding_window': 4},
    '27b': _COMMON | _SIZES | {'query_pre_attn_scalar': 4},
    'ungrouped': _COMMON
    | _SIZES
    | {'num_attention_heads': 2, 'num_hidden_layers': 2},
}

_GEMMA3 = _COMMON | {
    'architectures': ['Gemma3ForCausalLM'],
    'model_type': 'gemma3_text',
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'rope_theta': 1e6,
    'rope_local_base_freq': 1e4,
    'rope_scaling': None,
}
_LINEAR = {'rope_type': 'linear', 'factor': 8.0}
_IMAGES = {
    'architectures': ['Gemma3ForConditionalGeneration'],
    'model_type': 'gemma3',
    'vision_config': {
        'model_type': 'siglip_vision_model',
        'hidden_size': 8,
        'intermediate_size': 8,
        'num_attention_heads': 1,
        'num_hidden_layers': 1,
        'image_size': 28,
        'patch_size': 14,
    },
    'mm_tokens_per_image': 1,
}


def _newer(config):
  """Returns a config as transformers 5 writes it."""
  kept = {k: v for k, v in config.items() if not k.startswith('rope_')}
  kinds = ['sliding_attention'] * 2 + ['full_attention']
  rope = {'rope_type': 'default', 'rope_theta': 1e4}
  return kept | {
      'layer_types': [kinds[i % 3] for i in range(kept['num_hidden_layers'])],
      'rope_parameters': {
          'sliding_attention': rope,
          'full_attention': _LINEAR | {'rope_theta': 1e6},
      },
  }


# By the Gemma 3 that each resembles: the 270M and the 1B have a single head of
# keys and values, the 4B and larger ones scale the global rotary embedding and
# have a config within the config, and the 27B scales queries by the model's
# width over its heads.
GEMMA3_CONFIGS = {
    'gemma3_270m': _GEMMA3
    | _SIZES
    | {
        'num_key_value_heads': 1,
        'num_hidden_layers': 4,
        'sliding_window_pattern': 3,
    },
    'gemma3_4b': _IMAGES
    | {
        'text_config': _GEMMA3
        | _SIZES
        | {
            'num_hidden_layers': 7,
            'query_pre_attn_scalar': 8,
            'rope_scaling': _LINEAR,
        }
    },
    'gemma3_27b': _IMAGES
    | {
        'text_config': _newer(
            _GEMMA3 | _SIZES | {'query_pre_attn_scalar': 4, 'sliding_window': 4}
        )
    },
}
# The prefixes of the tensors of models with images: of the first uploads, and of
# later ones.
PREFIXES = {
    'gemma3_4b': 'language_model.model.',
    'gemma3_27b': 'model.language_model.',
}


def shapes(config, prefix=None):
  """Returns the shapes of a model's tensors by Hugging Face's names."""
  config, prefix = config.get('text_config', config), prefix or 'model.'
  d, f = config['hidden_size'], config['intermediate_size']
  q = config['num_attention_heads'] * config['head_dim']
  kv = config['num_key_value_heads'] * config['head_dim']
  layer = {
      'self_attn.q_proj': (q, d),
      'self_attn.k_proj': (kv, d),
      'self_attn.v_proj': (kv, d),
      'self_attn.o_proj': (d, q),
      'mlp.gate_proj': (f, d),
      'mlp.up_proj': (f, d),
      'mlp.down_proj': (d, f),
      'input_layernorm': (d,),
      'post_attention_layernorm': (d,),
      'pre_feedforward_layernorm': (d,),
      'post_feedforward_layernorm': (d,),
  }
  if config['model_type'] != 'gemma2':
    layer |= dict.fromkeys(
        ('self_attn.q_norm', 'self_attn.k_norm'), (config['head_dim'],)
    )
  result = {f'{prefix}embed_tokens.weight': (config['vocab_size'], d)}
  for number in range(config['num_hidden_layers']):
    for name, shape in layer.items():
      result[f'{prefix}layers.{number}.{name}.weight'] = shape
  return result | {f'{prefix}norm.weight': (d,)}


def tensors(config, seed=0, prefix=None):
  """Returns random tensors of a model: multiples of 1/256 up to about 1/2."""
  rng = np.random.RandomState(seed)
  return {
      name: rng.randint(-120, 121, shape).astype(np.float32) / 256
      for name, shape in shapes(config, prefix).items()
  }


def write(folder, config, *, files=1, seed=0, prefix=None):
  """Writes a model in Hugging Face's format, in one file or several."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  values = tensors(config, seed, prefix)
  if files == 1:
    safetensors.save_file(values, folder / 'model.safetensors')
    return folder
  names = [f'model-{i:05d}-of-{files:05d}.safetensors' for i in range(files)]
  table = {name: names[i % files] for i, name in enumerate(values)}
  for file in names:
    part = {name: values[name] for name in values if table[name] == file}
    safetensors.save_file(part, folder / file)
  index = {'metadata': {}, 'weight_map': table}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  return folder


def add_tokenizer(folder):
  """Copies the embedded model's tokenizer (4096 pieces) into a folder."""
  nano = pathlib.Path(lm.__file__).parent / 'nano'
  shutil.copy(nano / 'tokenizer.model', folder / 'tokenizer.model')
