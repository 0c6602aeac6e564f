"""Reader of dictionary_learning's folders: ae.pt and config.json.

    trainer_0/ae.pt          a state dict of torch, read without unpickling it
    trainer_0/config.json    {"trainer": {"dict_class": ..., "lm_name": ..., ...}}

These classes are read as the JumpReLU SAE that they equal at inference:

* JumpReluAutoEncoder, with or without subtracting the decoder bias;
* AutoEncoder and AutoEncoderNew (ReLU), with the threshold 0. On loading, the
  library moves the norms of AutoEncoder's decoder rows into the encoder, and so
  does this reader;
* GatedAutoEncoder, with the threshold b_mag - exp(r_mag) b_gate;
* BatchTopKSAE and MatryoshkaBatchTopKSAE, with their running threshold.

AutoEncoderTopK is read as a TopK SAE. All but JumpReluAutoEncoder and
AutoEncoderNew subtract the decoder bias from their inputs; the reader folds
this shift into the encoder's biases. Transcoders are not supported, because the
files do not mark them.
"""

from collections.abc import Mapping
import pathlib
import re
from typing import Any

import numpy as np

from jumprelu import errors, lm
from jumprelu.files import json_files, torch_zip
from jumprelu.release import layout
from jumprelu.release.formats import hooks, record

PARAMS = 'ae.pt'

Arrays = Mapping[str, np.ndarray]

# Our name -> name in the file. Matrices of `nn.Linear` are transposed.
_PLAIN = {name: name for name in ('W_enc', 'b_enc', 'W_dec', 'b_dec')}
_LINEAR = {'W_enc': 'encoder.weight', 'W_dec': 'decoder.weight'}
_TOPK = _LINEAR | {
    'b_enc': 'encoder.bias',
    'b_dec': 'b_dec',
    'k': 'k',
    'threshold': 'threshold',
}
_CLASSES = {
    'JumpReluAutoEncoder': _PLAIN | {'threshold': 'threshold'},
    'AutoEncoder': _LINEAR | {'b_enc': 'encoder.bias', 'b_dec': 'bias'},
    'AutoEncoderNew': _LINEAR
    | {'b_enc': 'encoder.bias', 'b_dec': 'decoder.bias'},
    'GatedAutoEncoder': _LINEAR
    | {
        'b_gate': 'gate_bias',
        'b_mag': 'mag_bias',
        'r_mag': 'r_mag',
        'b_dec': 'decoder_bias',
    },
    'AutoEncoderTopK': _TOPK,
    'BatchTopKSAE': _TOPK,
    'MatryoshkaBatchTopKSAE': _PLAIN
    | {'k': 'k', 'threshold': 'threshold', 'group_sizes': 'group_sizes'},
}
_VARIANTS = {
    'JumpReluAutoEncoder': 'jumprelu',
    'AutoEncoder': 'relu',
    'AutoEncoderNew': 'relu',
    'GatedAutoEncoder': 'gated',
    'BatchTopKSAE': 'batch_topk',
    'MatryoshkaBatchTopKSAE': 'matryoshka_batch_topk',
}
_NO_SHIFT = ('JumpReluAutoEncoder', 'AutoEncoderNew')
# Older saves of the TopK classes lack these buffers.
_OPTIONAL = ('k', 'group_sizes')
# As the library and our exports name submodules, such as resid_post_layer_8.
_SUBMODULE = re.compile(rf'({"|".join(lm.SITES)})_layer_(\d+)')


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether the folder holds ae.pt and config.json."""
  return (folder / PARAMS).is_file() and (folder / layout.CONFIG).is_file()


def read(folder: pathlib.Path) -> record.Released:
  """Reads one SAE; its pickle is interpreted and not run.

  Raises:
    DataError: a field or tensor is invalid, or ae.pt contains anything but
      tensors. The message names the file, and the field or tensor.
  """
  path, where = folder / PARAMS, folder / layout.CONFIG
  trainer = json_files.read_json(where).get('trainer')
  if not isinstance(trainer, dict):
    raise errors.DataError(f'{where}: trainer is {trainer!r}, wanted an object')
  kind = trainer.get('dict_class')
  if not isinstance(kind, str) or kind not in _CLASSES:
    raise errors.DataError(
        f'{where}: dict_class is {kind!r}, wanted one of {", ".join(_CLASSES)}'
    )
  params, k = _params(path, kind)
  origin = _origin(trainer)
  if kind == 'AutoEncoderTopK':
    k = trainer.get('k') if k is None else k
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
      raise errors.DataError(f'{where}: k is {k!r}, wanted 1, 2, ...')
    return record.make_topk(params, k, origin=origin, meta={'variant': 'topk'})
  return record.make_jumprelu(params, origin, {'variant': _VARIANTS[kind]})


def _params(path: pathlib.Path, kind: str) -> tuple[record.Params, int | None]:
  """Returns the arrays without a pre-encoder bias, and k if the file has it."""
  arrays = _checked(path, kind)
  k = arrays.pop('k', None)
  if k is not None:
    k = int(k)
  arrays.pop('group_sizes', None)
  if kind == 'GatedAutoEncoder':
    arrays = record.from_gates(arrays)
  arrays = {name: x.astype(np.float64) for name, x in arrays.items()}
  if kind == 'AutoEncoder':
    norms = np.linalg.norm(arrays['W_dec'], axis=1)
    norms = np.where(norms > 0, norms, 1.0)
    arrays['W_dec'] /= norms[:, None]
    arrays['W_enc'] *= norms
    arrays['b_enc'] *= norms
  if kind in ('AutoEncoder', 'AutoEncoderNew'):
    arrays['threshold'] = np.zeros_like(arrays['b_enc'])
  elif kind not in ('JumpReluAutoEncoder', 'GatedAutoEncoder'):
    threshold = arrays.pop('threshold')
    if kind != 'AutoEncoderTopK':
      arrays['threshold'] = np.full_like(arrays['b_enc'], threshold)
  if kind not in _NO_SHIFT:
    arrays['b_enc'] -= arrays['b_dec'] @ arrays['W_enc']
  return {name: x.astype(np.float32) for name, x in arrays.items()}, k


def _checked(path: pathlib.Path, kind: str) -> dict[str, np.ndarray]:
  """Returns the file's tensors by our names, with checked shapes and values."""
  stored = torch_zip.read(path)
  names = _CLASSES[kind]
  if extra := [name for name in stored if name not in names.values()]:
    raise errors.DataError(
        f'{path}: unexpected tensor {extra[0]}; a {kind} has'
        f' {", ".join(names.values())}'
    )
  arrays: dict[str, np.ndarray] = {}
  for name, theirs in names.items():
    if theirs in stored:
      value = stored[theirs]
      arrays[name] = value.T if theirs.endswith('.weight') else value
    elif name not in _OPTIONAL:
      raise errors.DataError(f'{path}: tensor {theirs} is missing')
  if arrays['W_enc'].ndim != 2 or 0 in arrays['W_enc'].shape:
    raise errors.DataError(
        f'{path}: tensor {names["W_enc"]} has shape {arrays["W_enc"].shape},'
        ' wanted two axes'
    )
  d_in, width = arrays['W_enc'].shape
  shapes: dict[str, tuple[int, ...]] = {
      'W_enc': (d_in, width), 'W_dec': (width, d_in), 'b_dec': (d_in,), 'k': (),
  }  # fmt: skip
  if kind != 'JumpReluAutoEncoder':
    shapes['threshold'] = ()
  for name, value in arrays.items():
    wanted = shapes.get(name, (width,))
    if name != 'group_sizes' and value.shape != wanted:
      raise errors.DataError(
          f'{path}: tensor {names[name]} has shape {stored[names[name]].shape},'
          f' which does not fit the {width} latents and {d_in} dimensions of'
          f' {names["W_enc"]}'
      )
    if not np.isfinite(value.astype(np.float64)).all():
      raise errors.DataError(
          f'{path}: tensor {names[name]} has non-finite values; download it'
          ' again'
      )
  return arrays


def _origin(trainer: Mapping[str, Any]) -> record.Origin:
  """Returns the origin that the fields of a trainer state."""
  model, layer = trainer.get('lm_name'), trainer.get('layer')
  match = _SUBMODULE.fullmatch(str(trainer.get('submodule_name')))
  if isinstance(layer, bool) or not isinstance(layer, int):
    layer = int(match[2]) if match else None
  return record.Origin(
      model=hooks.model_of(model) if isinstance(model, str) else None,
      layer=layer,
      site=match[1] if match else None,
  )
