"""Export to SAELens: cfg.json of version 6 and sae_weights.safetensors.

`SAE.load_from_disk(folder)` loads each folder. JumpReLU, ReLU, Gated and TopK
SAEs keep their architecture; other variants become the JumpReLU SAE that they
equal, because SAELens has them for training only. All fields whose defaults
changed between versions are written. `hook_z` of the field
`reshape_activations` flattens the heads that TransformerLens's hook returns.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from jumprelu.files import json_files
from jumprelu.release.exports import source as source_lib
from jumprelu.release.formats import hooks, record
from jumprelu.release.formats.saelens import CONFIG, PARAMS

NAME = 'saelens'
_SPARSITY = 'sparsity.safetensors'
# The version whose fields are written. Files without a version of at least 6
# are read as files of version 5.
VERSION = '6.54.12'
# Added to frequencies, as SAELens does, because a frequency may be 0.
_FLOOR = 1e-10


def write(sources: Sequence[source_lib.Source], out: pathlib.Path) -> list[str]:
  """Writes a folder for each SAE; returns warnings.

  Raises:
    UserError: SAELens has no such SAE; the message names it.
  """
  warnings = []
  for source in sources:
    folder = out / source.name
    folder.mkdir(parents=True)
    config, arrays = _convert(source)
    metadata, notes = _metadata(source)
    warnings += notes
    source_lib.write_safetensors(folder / PARAMS, arrays)
    if source.frequency is not None:
      sparsity = np.log10(source.frequency.astype(np.float64) + _FLOOR)
      source_lib.write_safetensors(
          folder / _SPARSITY, {'sparsity': sparsity.astype(np.float32)}
      )
    json_files.write_json(folder / CONFIG, config | {'metadata': metadata})
  return warnings


def config_of(source: source_lib.Source) -> dict[str, Any]:
  """Returns the content of cfg.json.

  Raises:
    UserError: SAELens has no such SAE.
  """
  return _convert(source)[0] | {'metadata': _metadata(source)[0]}


def _convert(
    source: source_lib.Source,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns cfg.json without metadata, and the tensors."""
  sae, site = source.released.sae, source.released.origin.site
  kind, arrays, extra = _architecture(source)
  if 'W_skip' in arrays:
    arrays['W_skip'] = np.ascontiguousarray(arrays['W_skip'].T)
  if source.transcodes:
    prefix = '' if kind == 'standard' else f'{kind}_'
    kind = f'{prefix}{"skip_" if sae.skip else ""}transcoder'
    extra = {'d_out': sae.d_out}
  config = {
      'architecture': kind,
      'd_in': sae.d_in,
      'd_sae': sae.width,
      'dtype': 'float32',
      'device': 'cpu',
      'apply_b_dec_to_input': False,
      'normalize_activations': 'none',
      'reshape_activations': 'hook_z' if site == 'attn_heads' else 'none',
  }
  return config | extra, arrays


def _architecture(
    source: source_lib.Source,
) -> tuple[str, record.Params, dict[str, Any]]:
  """Returns the architecture, the tensors, and fields that only it has."""
  sae, params = source.released.sae, source_lib.params_of(source)
  variant = sae.variant.removeprefix('matryoshka_')
  if variant == 'topk':
    k = float(params.pop('k'))
    if source.transcodes:
      raise source.refuse(NAME, 'SAELens has no TopK transcoders')
    if k % 1:
      raise source.refuse(NAME, f'k is {k:g}, and SAELens wants an integer')
    return 'topk', params, {'k': int(k), 'rescale_acts_by_decoder_norm': False}
  # Gated SAEs of strangers are read as JumpReLU SAEs already.
  if variant == 'gated' and not source.transcodes and 'W_mag' not in params:
    gates = {
        'b_gate': params['b_enc'],
        'b_mag': params['b_mag'],
        'r_mag': params.get('r_mag', np.zeros_like(params['b_mag'])),
    }
    plain = {name: params[name] for name in ('W_enc', 'W_dec', 'b_dec')}
    return 'gated', plain | gates, {}
  converted = source_lib.as_jumprelu(source, to=NAME)
  if variant == 'relu':
    converted.pop('threshold')
    return 'standard', converted, {}
  return 'jumprelu', converted, {}


def _metadata(source: source_lib.Source) -> tuple[dict[str, Any], list[str]]:
  """Returns the field `metadata`, and warnings."""
  released = source.released
  model, warnings = source_lib.model_name(source)
  known = hooks.hooks_of(released.origin)
  hook, hook_out = known['transformer_lens']
  names = {'hook_name': hook, 'hook_name_out': hook_out}
  if 'huggingface' in known:
    hook, hook_out = known['huggingface']
    names |= {'hf_hook_name': hook, 'hf_hook_name_out': hook_out}
  if source.transcodes and released.origin.input_gain:
    warnings.append(
        f'{source.path}: its hook {names["hook_name"]} exists in'
        " TransformerLens's TransformerBridge, and not in HookedTransformer"
    )
  text = released.training.get('data')
  corpus = released.training.get('corpus') or {}
  ours = {
      'path': source.path,
      'variant': released.sae.variant,
      'l0': source.l0,
      **{
          name: value
          for name, value in released.meta.items()
          if name not in ('variant', 'released_l0')
      },
  }
  metadata = {
      'sae_lens_version': VERSION,
      'sae_lens_training_version': None,
      'model_name': model,
      'hook_head_index': None,
      **{name: hook for name, hook in names.items() if hook},
      'prepend_bos': True,
      'exclude_special_tokens': True,
      'dataset_path': text if isinstance(text, str) else None,
      'context_size': corpus.get('sequence_length'),
      'seqpos_slice': [None],
      'model_class_name': 'HookedTransformer',
      # Norms must not be folded into other weights.
      'model_from_pretrained_kwargs': {
          'fold_ln': False,
          'center_writing_weights': False,
          'center_unembed': False,
      },
      'jumprelu': ours,
  }
  return metadata, warnings
