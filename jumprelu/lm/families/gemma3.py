"""Gemma 3 (arXiv 2503.19786): a global layer after five local ones, QK norms.

Images are not supported: the parts of a model that read them are not loaded.
For text alone, attention is causal in all models, as in Gemma 2.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from jumprelu.lm import config as config_lib
from jumprelu.lm.families import (
    family,
    gemma3_fields,
    gemma_blocks,
    gguf_fields,
)

_NAME = 'gemma3'
_TITLE = 'Gemma 3'

# The properties that all models share.
_SHARED = {
    'layer_pattern': (config_lib.LOCAL,) * 5 + (config_lib.GLOBAL,),
    'attention_softcap': None,
    'logits_softcap': None,
    'qk_norm': True,
    'local_rope': config_lib.Rope(10_000),
}


def _make(
    name: str,
    d_model: int,
    *,
    ffw: int,
    heads: int,
    kv_heads: int,
    layers: int,
    head_dim: int = 256,
    query_scale_by_model: bool = False,
) -> config_lib.LmConfig:
  """Returns a released model; only the 270M and the 1B never saw images."""
  small = d_model < 2560
  return config_lib.LmConfig(
      name=f'{_NAME}_{name}',
      family=_NAME,
      vocab=gemma3_fields.VOCAB,
      d_model=d_model,
      ffw=ffw,
      heads=heads,
      kv_heads=kv_heads,
      head_dim=head_dim,
      layers=layers,
      window=512 if small else 1024,
      global_rope=config_lib.Rope(1_000_000, 1.0 if small else 8.0),
      context=32_768 if small else 131_072,
      query_scale_by_model=query_scale_by_model,
      transposed_gating=True,
      **_SHARED,
  )


_SIZES = (
    _make('270m', 640, ffw=2048, heads=4, kv_heads=1, layers=18),
    _make('1b', 1152, ffw=6912, heads=4, kv_heads=1, layers=26),
    _make('4b', 2560, ffw=10240, heads=8, kv_heads=4, layers=34),
    _make('12b', 3840, ffw=15360, heads=16, kv_heads=8, layers=48),
    _make(
        '27b',
        5376,
        ffw=21504,
        heads=32,
        kv_heads=16,
        layers=62,
        head_dim=128,
        query_scale_by_model=True,
    ),
)
_MODELS = tuple(
    dataclasses.replace(config, name=config.name + suffix)
    for config in _SIZES
    for suffix in ('', '_it')
)


def _model_name(name: str) -> str | None:
  """Returns 'gemma3_1b' for 'google/gemma-3-1b-pt'; None for other names."""
  match = re.fullmatch(
      r'(?:google/)?gemma-3-(270m|1b|4b|12b|27b)(-it|-pt)?', name
  )
  if match is None:
    return None
  return f'{_NAME}_{match[1]}{"_it" if match[2] == "-it" else ""}'


def _missing_weights(name: str) -> str:
  """Returns the part of an error that names the files to fetch."""
  size, _, tuned = name.removeprefix(f'{_NAME}_').partition('_')
  suffix = '-it' if tuned else '' if size == '270m' else '-pt'
  return (
      'accept the licence, then put there the files of'
      f' google/gemma-3-{size}{suffix} from Hugging Face (config.json,'
      ' *.safetensors, tokenizer.model) or the orbax checkpoint'
      f' gemma3-{size}-{tuned or "pt"} of the gemma package'
  )


def _complete(sizes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arguments of `LmConfig` that shapes do not determine.

  They are those of the released model of the same shapes, or else of the 270M.
  """
  names = ('d_model', 'heads', 'kv_heads', 'head_dim')
  alike = [
      config
      for config in _SIZES
      if all(sizes[name] == getattr(config, name) for name in names)
  ]
  model = alike[0] if alike else _SIZES[0]
  fields = ('window', 'global_rope', 'context', 'query_scale_by_model')
  return _SHARED | {field: getattr(model, field) for field in fields}


def _conversions(config: config_lib.LmConfig) -> dict[str, family.Conversion]:
  return gemma_blocks.conversions(config, spare_rows=gemma3_fields.SPARE_ROWS)


def _read_gguf(fields: Mapping[str, Any], vocab: int) -> family.ReadFields:
  return gguf_fields.read(
      fields, vocab, title=_TITLE, complete=_complete, caps={}, fixed={}
  )


FAMILY = family.Family(
    name=_NAME,
    title=_TITLE,
    models=_MODELS,
    model_name=_model_name,
    missing_weights=_missing_weights,
    **gemma_blocks.SHARED,
    special_ids=family.SpecialIds(
        pad=0, eos=1, bos=2, unk=3, start_of_turn=105, end_of_turn=106
    ),
    huggingface=family.HuggingFace(
        model_classes={
            'gemma3_text': 'Gemma3ForCausalLM',
            'gemma3': 'Gemma3ForConditionalGeneration',
        },
        read_fields=gemma3_fields.read,
        conversions=_conversions,
        # The prefixes of the first uploads with images, of later uploads, and
        # of models without images.
        prefixes=('language_model.model.', 'model.language_model.', 'model.'),
        unread=(
            'lm_head.weight',
            'language_model.lm_head.weight',
            'vision_tower.',
            'model.vision_tower.',
            'multi_modal_projector.',
            'model.multi_modal_projector.',
        ),
    ),
    orbax=family.Orbax(
        present=(gemma_blocks.QUERY_NORM.replace('layer/', 'layer_0/'),),
        absent=(),
        complete=_complete,
        unread=('vision_encoder/', 'embedder/mm_'),
    ),
    gguf=family.Gguf(architecture='gemma3', read_fields=_read_gguf),
)
