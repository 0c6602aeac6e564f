"""Reader of SAELens' folders: cfg.json and sae_weights.safetensors.

These architectures are read as the JumpReLU SAE that they equal:

* jumprelu;
* standard (ReLU), with the threshold 0;
* gated, with the threshold b_mag - exp(r_mag) b_gate on the magnitudes (arXiv
  2404.16014, section 3.2);
* training checkpoints of batchtopk and matryoshka_batchtopk, with their running
  threshold, because SAELens itself exports these SAEs as jumprelu;
* ReLU and JumpReLU transcoders, with or without a skip term.

topk is read as a TopK SAE. Before version 6 of SAELens, such SAEs are marked by
the value topk of `activation_fn` (or `activation_fn_str`).

In SAEs of the topk architectures, `rescale_acts_by_decoder_norm` multiplies the
pre-activations by the norms of the decoder rows; the reader folds these norms
into the encoder. If an SAE subtracts the decoder bias from its inputs, the
reader folds this shift into the encoder bias. Before version 6, a missing
`apply_b_dec_to_input` means that the bias is subtracted; later files of SAEs
other than transcoders must contain the field.
"""

from collections.abc import Mapping
import itertools
import pathlib
import re
from typing import Any

import numpy as np

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.release.formats import hooks, record, saelens_fields, tensors

# The content of a cfg.json.
Config = Mapping[str, Any]

CONFIG = 'cfg.json'
PARAMS = 'sae_weights.safetensors'
_PLAIN = ('W_enc', 'b_enc', 'W_dec', 'b_dec')
_GATES = ('b_gate', 'b_mag', 'r_mag')
_SCALES = ('scaling_factor', 'finetuning_scaling_factor')

# Fields that name the input and the target, in the order of precedence.
_HOOKS = (
    ('hf_hook_name', 'hf_hook_name_out'),
    ('hook_name', 'hook_name_out'),
    ('hook_point', 'hook_point_out'),
)

# Architecture -> our name of the variant, and the names of the tensors.
_ARCHITECTURES = {
    'standard': ('relu', _PLAIN),
    'jumprelu': ('jumprelu', (*_PLAIN, 'threshold')),
    'gated': ('gated', ('W_enc', 'W_dec', 'b_dec', *_GATES)),
    'topk': ('topk', _PLAIN),
    'batchtopk': ('batch_topk', (*_PLAIN, 'topk_threshold')),
    'matryoshka_batchtopk': (
        'matryoshka_batch_topk',
        (*_PLAIN, 'topk_threshold'),
    ),
    'transcoder': ('relu', _PLAIN),
    'skip_transcoder': ('relu', (*_PLAIN, 'W_skip')),
    'jumprelu_transcoder': ('jumprelu', (*_PLAIN, 'threshold')),
    'jumprelu_skip_transcoder': (
        'jumprelu',
        (*_PLAIN, 'threshold', 'W_skip'),
    ),
}
_AXES = {name: ('width',) for name in _GATES} | {
    'W_skip': ('d_out', 'd_in'),
    **{name: ('width',) for name in _SCALES},
    'topk_threshold': (),
}


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether the folder holds cfg.json and sae_weights.safetensors."""
  return (folder / CONFIG).is_file() and (folder / PARAMS).is_file()


def read(folder: pathlib.Path) -> record.Released:
  """Reads one SAE.

  Raises:
    DataError: a field or tensor is invalid; the message names the file, the
      field or tensor, its value or shape, and the expected one.
  """
  where, path = folder / CONFIG, folder / PARAMS
  config = json_files.read_json(where)
  saelens_fields.check(where, config)
  metadata = config.get('metadata')
  metadata = config | (metadata if isinstance(metadata, dict) else {})
  architecture = _architecture(where, config)
  subtracts = _subtracts_bias(where, config, metadata)
  _check_inputs(where, config)
  variant, names = _ARCHITECTURES[architecture]
  params = _read(path, names, config)
  if variant == 'gated':
    params = record.from_gates(params)
  elif variant == 'relu':
    params['threshold'] = np.zeros_like(params['b_enc'])
  elif 'topk' in variant and _flag(
      where, config, 'rescale_acts_by_decoder_norm'
  ):
    params = _by_norms(params)
  if 'topk_threshold' in params:
    threshold = params.pop('topk_threshold')
    params['threshold'] = np.full_like(params['b_enc'], threshold)
  if subtracts:
    shift = params['b_dec'].astype(np.float64) @ params['W_enc']
    params['b_enc'] = (params['b_enc'] - shift).astype(np.float32)
  origin, meta = _origin(where, metadata), {'variant': variant}
  if variant == 'topk':
    k, width = _k(where, config), len(params['b_enc'])
    if k > width:
      raise errors.DataError(
          f'{where}: k is {str(k)[:40]}, wanted at most the width, {width}'
      )
    return record.make_topk(params, k, origin=origin, meta=meta)
  return record.make_jumprelu(params, origin, meta)


def _architecture(where: pathlib.Path, config: Config) -> str:
  """Returns a key of `_ARCHITECTURES`."""
  name = config.get('architecture', 'standard')
  # Versions before 6 have one of these fields; the second name is older.
  function = config.get('activation_fn', config.get('activation_fn_str'))
  if function == 'topk' and name == 'standard':
    return 'topk'
  if not isinstance(name, str) or name not in _ARCHITECTURES:
    raise errors.DataError(
        f'{where}: architecture is {name!r}, wanted one of'
        f' {", ".join(_ARCHITECTURES)}'
    )
  if function not in (None, 'relu', 'topk'):
    raise errors.DataError(
        f"{where}: activation_fn is {function!r}, wanted 'relu' or 'topk'"
    )
  return name


def _k(where: pathlib.Path, config: Config) -> int:
  """Returns the number of active latents per row, from old or new fields."""
  old = config.get('activation_fn_kwargs')
  k = config.get('k', old.get('k') if isinstance(old, dict) else None)
  if isinstance(k, bool) or not isinstance(k, int | float) or k < 1 or k % 1:
    raise errors.DataError(f'{where}: k is {k!r}, wanted 1, 2, ...')
  return int(k)


def _flag(where: pathlib.Path, config: Config, name: str) -> bool:
  """Returns a boolean field; old files lack it, which means false."""
  value = config.get(name, False)
  if not isinstance(value, bool):
    raise errors.DataError(
        f'{where}: {name} is {value!r}, wanted true or false'
    )
  return value


def _by_norms(params: record.Params) -> record.Params:
  """Returns arrays with unit decoder rows and their norms in the encoder."""
  W_dec = params['W_dec'].astype(np.float64)
  # SAELens has the same lower bound on the norms.
  norms = np.maximum(np.linalg.norm(W_dec, axis=1), 1e-8)
  changed = {
      'W_enc': params['W_enc'] * norms,
      'b_enc': params['b_enc'] * norms,
      'W_dec': W_dec / norms[:, None],
  }
  return params | {k: v.astype(np.float32) for k, v in changed.items()}


def _subtracts_bias(
    where: pathlib.Path, config: Config, metadata: Config
) -> bool:
  """Returns whether the SAE subtracts the decoder bias from its inputs."""
  transcoder = 'transcoder' in config.get('architecture', '')
  value = config.get('apply_b_dec_to_input')
  if value is None and transcoder:
    value = False
  if value is None:
    version = str(metadata.get('sae_lens_version') or '0')
    major = version.partition('.')[0]
    if not re.fullmatch('[0-5]', major):
      raise errors.DataError(
          f'{where}: apply_b_dec_to_input is missing, wanted true or false'
      )
    value = True
  if not isinstance(value, bool) or (value and transcoder):
    raise errors.DataError(
        f'{where}: apply_b_dec_to_input is {value!r}, wanted'
        f' {"false" if transcoder else "true or false"}'
    )
  return value


def _check_inputs(where: pathlib.Path, config: Config):
  """Raises DataError unless the SAE reads unnormalised activations."""
  normalised = config.get('normalize_activations') or 'none'
  if normalised != 'none':
    raise errors.DataError(
        f"{where}: normalize_activations is {normalised!r}, wanted 'none': fold"
        ' the normalisation into the weights first'
    )


def _read(
    path: pathlib.Path, names: tuple[str, ...], config: Config
) -> record.Params:
  """Reads the tensors.

  Old files may hold scaling factors of each latent, which must be 1.
  """
  for name in ('d_in', 'd_sae'):
    if type(config.get(name)) not in (int, type(None)):
      raise errors.DataError(
          f'{path.with_name(CONFIG)}: {name} is {str(config[name])[:40]!r},'
          ' wanted a whole number'
      )
  header = tensors.header(path)
  scales = [name for name in _SCALES if name in header]
  names = (*names, *scales)
  params = record.read_arrays(
      path,
      dict(zip(names, names, strict=True)),
      axes=_AXES,
      width=config.get('d_sae'),
  )
  if config.get('d_in') not in (None, params['W_enc'].shape[0]):
    raise errors.DataError(
        f'{path}: tensor W_enc has shape {params["W_enc"].shape}, wanted'
        f' ({config["d_in"]!r}, {params["W_enc"].shape[1]}) by d_in in {CONFIG}'
    )
  for name in scales:
    if (params.pop(name) != 1).any():
      raise errors.DataError(f'{path}: tensor {name} is not 1 everywhere')
  if 'W_skip' in params:
    params['W_skip'] = np.ascontiguousarray(params['W_skip'].T)
  return params


def _origin(where: pathlib.Path, metadata: Config) -> record.Origin:
  """Returns the origin that the model's name and the hook names state.

  Hugging Face names take precedence over TransformerLens names.
  """
  names = ('model_name', *itertools.chain(*_HOOKS))
  for name in names:
    if not isinstance(metadata.get(name), str | None):
      raise errors.DataError(
          f'{where}: {name} is {str(metadata[name])[:40]!r}, wanted a name'
      )
  origin = record.Origin()
  if name := metadata.get('model_name'):
    origin = origin._replace(model=hooks.model_of(name))
  for source, target in _HOOKS:
    if metadata.get(source):
      origin = origin.over(
          hooks.origin_of(metadata[source], metadata.get(target))
      )
  return origin
