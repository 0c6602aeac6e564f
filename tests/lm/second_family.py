"""An invented family that differs from Gemma 2 in every allowed way."""

import dataclasses
import json

import numpy as np
from safetensors import numpy as safetensors

from jumprelu import lm
from jumprelu.lm import config as config_lib
from jumprelu.lm import families
from jumprelu.lm.families import gemma2

LOCAL, GLOBAL = config_lib.LOCAL, config_lib.GLOBAL

CONFIG = lm.LmConfig(
    name='second_tiny',
    family='second',
    vocab=64,
    d_model=16,
    ffw=32,
    heads=4,
    kv_heads=1,
    head_dim=8,
    layers=4,
    layer_pattern=(LOCAL, LOCAL, GLOBAL),
    window=3,
    attention_softcap=None,
    logits_softcap=None,
    qk_norm=True,
    local_rope=config_lib.Rope(100),
    global_rope=config_lib.Rope(10_000, 2.0),
    context=32,
    transposed_gating=True,
)

# The fields of its config.json have the names of `LmConfig`, unlike those of
# real families.
_READ = (
    'vocab', 'd_model', 'ffw', 'heads', 'kv_heads', 'head_dim', 'layers',
    'window', 'context',
)  # fmt: skip
_COMMON = {
    name: getattr(CONFIG, name)
    for name in (
        'layer_pattern', 'attention_softcap', 'logits_softcap', 'qk_norm',
        'local_rope', 'global_rope',
    )
}  # fmt: skip


def _read_fields(fields):
  text = fields['text']
  problems = [f'text.{n} is missing' for n in _READ if n not in text]
  values = {name: text[name] for name in _READ if name in text}
  return families.ReadFields(
      values | _COMMON | {'transposed_gating': True}, problems
  )


def _conversions(config):
  conversions = gemma2.FAMILY.huggingface.conversions(config)
  renamed = {
      key: conversion._replace(
          names=tuple(
              name.replace('layers.{layer}.', 'deep.{layer}.')
              for name in conversion.names
          )
      )
      for key, conversion in conversions.items()
  }
  norm = families.Conversion((), (config.head_dim,), np.asarray)
  return renamed | {
      f'layer/attn/_{ours}_norm/scale': norm._replace(
          names=('deep.{layer}.self_attn.' + theirs,)
      )
      for ours, theirs in (('query', 'q_norm'), ('key', 'k_norm'))
  }


def _hook_names(lens, module):
  return families.HookNames(
      f'lens.{{layer}}.{lens}', f'model.layers.{{layer}}.{module}'
  )


FAMILY = dataclasses.replace(
    gemma2.FAMILY,
    name='second',
    title='Second',
    models=(CONFIG,),
    model_name=lambda name: 'second_tiny' if name == 'maker/second' else None,
    missing_weights=lambda name: f'ask the maker of {name}',
    matrices=lambda config: gemma2.FAMILY.matrices(config)._replace(mlp=7),
    hook_names={
        lm.Site.RESID_POST: _hook_names('after', 'output'),
        lm.Site.MLP_OUT: _hook_names('mlp', 'mlp_norm.output'),
        lm.Site.MLP_IN: _hook_names('norm * gain', 'before_mlp.output'),
        lm.Site.ATTN_HEADS: _hook_names('heads', 'attention.project.input'),
    },
    input_gain_hook_names=_hook_names('norm', 'before_mlp.output / gain'),
    special_ids=gemma2.FAMILY.special_ids._replace(
        start_of_turn=105, end_of_turn=106
    ),
    huggingface=families.HuggingFace(
        model_classes={
            'second': 'SecondForCausalLM',
            'second_with_images': 'SecondForConditionalGeneration',
        },
        read_fields=_read_fields,
        conversions=_conversions,
        prefixes=('lm.', 'text.lm.'),
        unread=('vision.',),
    ),
    orbax=families.Orbax(
        present=('layer_0/attn/_query_norm/scale',),
        absent=(),
        complete=lambda sizes: _COMMON | {'window': 3, 'context': 32},
    ),
    gguf=dataclasses.replace(gemma2.FAMILY.gguf, architecture='second'),
)


def register(monkeypatch):
  """Adds the family to the tables, for one test."""
  monkeypatch.setitem(families.FAMILIES, 'second', FAMILY)
  monkeypatch.setitem(families.MODELS, CONFIG.name, CONFIG)


def write(folder, *, prefix='lm.', model_type='second'):
  """Writes a folder of random weights in the family's Hugging Face format."""
  folder.mkdir(parents=True)
  text = {name: getattr(CONFIG, name) for name in _READ}
  (folder / 'config.json').write_text(
      json.dumps({'model_type': model_type, 'text': text})
  )
  rng = np.random.RandomState(0)
  tensors = {'vision.w': np.zeros(3, np.float32)}
  for key, conversion in _conversions(CONFIG).items():
    if key == 'layer/attn/qkv_einsum/w':
      continue  # This model's heads share keys and values.
    for name in conversion.names:
      for layer in range(CONFIG.layers):
        values = 0.3 * rng.normal(size=conversion.shape)
        tensors[prefix + name.format(layer=layer)] = values.astype(np.float32)
  safetensors.save_file(tensors, folder / 'model.safetensors')
  return folder
