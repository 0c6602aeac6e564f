"""Reader of circuit-tracer's sets: config.yaml and a file per layer.

    config.yaml              model_kind: transcoder_set, and the hooks
    layer_0.safetensors      the transcoder of a layer, named `layer_0`

A transcoder has the encoder [width, model], transposed against ours, and
thresholds in `activation_function.threshold`; without them it is a ReLU
transcoder. Its skip term is x @ W_skip.T. Cross-layer transcoders and sets that
read the residual stream before the norm are not supported.
"""

from collections.abc import Mapping
import pathlib
import re

import numpy as np

from jumprelu import errors
from jumprelu.release.formats import hooks, record, tensors

CONFIG = 'config.yaml'
THRESHOLD = 'activation_function.threshold'

_FILE = re.compile(r'layer_(\d+)\.safetensors')
_FIELD = re.compile(r'([A-Za-z_]\w*):[ \t]*(.*?)[ \t]*')
_MAX_BYTES = 2**20
_KIND = 'transcoder_set'
# Those of the readers of sets; `scan`, `transcoders` and `repo_id` name files of
# features and weights on the web.
_FIELDS = frozenset((
    'model_kind', 'model_name', 'feature_input_hook', 'feature_output_hook',
    'activation', 'scan', 'transcoders', 'repo_id',
))  # fmt: skip
_NAMES = {name: name for name in ('W_enc', 'b_enc', 'W_dec', 'b_dec')}
_AXES = {'W_enc': ('width', 'd_in'), 'W_skip': ('d_out', 'd_in')}


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether the folder holds config.yaml and files of layers."""
  return (folder / CONFIG).is_file() and bool(_files(folder))


def read_set(folder: pathlib.Path) -> dict[str, record.Released]:
  """Reads the transcoders of a set, by the names of their files.

  Raises:
    DataError: a field or tensor is invalid, or the set is of another kind. The
      message names the file, the field or tensor, and the expected value.
  """
  fields = _fields(folder / CONFIG)
  if unknown := sorted(fields.keys() - _FIELDS):
    raise errors.DataError(
        f'{folder / CONFIG}: unknown field {unknown[0]}; wanted:'
        f' {", ".join(sorted(_FIELDS))}'
    )
  wanted = {'model_kind': (_KIND,), 'activation': ('', 'null', 'jump_relu')}
  for name, values in wanted.items():
    if fields.get(name, '') not in values:
      raise errors.DataError(
          f'{folder / CONFIG}: {name} is {fields.get(name, "")!r}, wanted'
          f' {" or ".join(filter(None, values))}'
      )
  return {
      f'layer_{layer}': _read(path, _origin(folder / CONFIG, fields, layer))
      for layer, path in _files(folder).items()
  }


def _files(folder: pathlib.Path) -> dict[int, pathlib.Path]:
  """Returns the file of each layer, in ascending order."""
  layers: dict[int, pathlib.Path] = {}
  for path in sorted(folder.iterdir()):
    if match := _FILE.fullmatch(path.name):
      layer = int(match[1])
      if layer in layers:
        raise errors.DataError(
            f'{path}: {layers[layer].name} is of layer {layer}, too; keep one'
            ' of them'
        )
      layers[layer] = path
  return dict(sorted(layers.items()))


def _fields(path: pathlib.Path) -> dict[str, str]:
  """Returns the top-level fields of a YAML file that have plain values."""
  if path.stat().st_size > _MAX_BYTES:
    raise errors.DataError(f'{path}: larger than a config')
  matches = map(
      _FIELD.fullmatch, path.read_text('utf-8', 'replace').split('\n')
  )
  return {m[1]: m[2].strip('\'"') for m in matches if m}


def _origin(
    path: pathlib.Path, fields: Mapping[str, str], layer: int
) -> record.Origin:
  source, target = (
      f'blocks.{layer}.{fields.get(name) or default}'
      for name, default in (
          ('feature_input_hook', 'hook_resid_mid'),
          ('feature_output_hook', 'hook_mlp_out'),
      )
  )
  origin = hooks.origin_of(source, target)
  if origin.site != 'transcoder':
    raise errors.DataError(
        f'{path}: reads {source} and reconstructs {target}, which no supported'
        ' transcoder does; wanted: ln2.hook_normalized or mlp.hook_in, and'
        ' hook_mlp_out'
    )
  return origin._replace(model=hooks.model_of(fields.get('model_name', '')))


def _read(path: pathlib.Path, origin: record.Origin) -> record.Released:
  headers = tensors.header(path)
  names = dict(_NAMES)
  for name, theirs in (('threshold', THRESHOLD), ('W_skip', 'W_skip')):
    if theirs in headers:
      names[name] = theirs
  params = record.read_arrays(path, names, axes=_AXES)
  for name in ('W_enc', 'W_skip'):
    if name in params:
      params[name] = np.ascontiguousarray(params[name].T)
  variant = 'jumprelu' if 'threshold' in params else 'relu'
  params.setdefault('threshold', np.zeros_like(params['b_enc']))
  return record.make_jumprelu(params, origin, {'variant': variant})
