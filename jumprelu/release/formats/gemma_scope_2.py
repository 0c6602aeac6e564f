"""Reader of Gemma Scope 2's folders: params.safetensors, often a config.json.

    gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_small/
    gemma-scope-2-1b-pt/transcoder_all/layer_3_width_262k_l0_big_affine/

Tensors have lower-case names. The affine term of a skip transcoder is the
tensor `affine_skip_connection` [d_in, d_out]. SAEs in folders `attn_out` read
the concatenated heads, before the output projection. A transcoder's input
includes the gain of the norm before the MLP, unlike in the first Gemma Scope.
Hook points in config.json take precedence over folder names. Cross-layer
transcoders and crosscoders are not supported: they are refused because of the
shapes of their tensors.
"""

from collections.abc import Mapping
import pathlib
import re
from typing import Any

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.release import layout
from jumprelu.release.formats import hooks, record

PARAMS = 'params.safetensors'
SKIP = 'affine_skip_connection'
_LEAF = re.compile(r'layer_(\d+)_width_(\d+[km]?)_l0_[a-z0-9]+(_affine)?')
_SITE = re.compile(r'(resid_post|attn_out|mlp_out|transcoder)(_all)?')
_SITES = {'attn_out': 'attn_heads'}
_REPOSITORY = re.compile(r'gemma-scope-2-(270m|1b|4b|12b|27b)-(pt|it)')


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether the folder holds a params.safetensors."""
  return (folder / PARAMS).is_file()


def read(folder: pathlib.Path) -> record.Released:
  """Reads one SAE.

  Raises:
    DataError: a tensor is invalid, its width is not that of the folder's name,
      or config.json describes no JumpReLU SAE. The message names the file and
      the expected value.
  """
  path = folder / PARAMS
  names = {ours: ours.lower() for ours in record.plain_names()}
  config = {}
  if (folder / layout.CONFIG).is_file():
    config = json_files.read_json(folder / layout.CONFIG)
  _check(folder / layout.CONFIG, config)
  parts = path.absolute().parent.parts[-6:]
  leaf = _LEAF.fullmatch(parts[-1])
  affine = config.get('affine_connection')
  if bool(leaf and leaf[3]) if affine is None else affine:
    names['W_skip'] = SKIP
  params = record.read_arrays(path, names)
  width = layout.width_name(params['W_enc'].shape[1])
  if leaf and leaf[2] != width:
    raise errors.DataError(
        f'{path}: tensor w_enc has {params["W_enc"].shape[1]} latents, wanted'
        f' width_{leaf[2]}'
    )
  origin = _origin_in(config).over(_origin_of(parts, leaf))
  if origin.site == 'transcoder' and origin.input_gain is None:
    origin = origin._replace(input_gain=True)
  return record.make_jumprelu(params, origin, {})


def _check(path: pathlib.Path, config: Mapping[str, Any]):
  """Raises DataError if the config is not that of a JumpReLU SAE."""
  architecture = config.get('architecture', 'jump_relu')
  if architecture != 'jump_relu':
    raise errors.DataError(
        f"{path}: architecture is {architecture!r}, wanted 'jump_relu'"
    )
  kinds = {
      'affine_connection': (bool, 'true or false'),
      'hf_hook_point_in': (str, 'the name of a module'),
      'hf_hook_point_out': (str, 'the name of a module'),
  }
  for name, (kind, wanted) in kinds.items():
    if not isinstance(config.get(name), kind | None):
      raise errors.DataError(
          f'{path}: {name} is {str(config[name])[:40]!r}, wanted {wanted}'
      )


def _origin_in(config: Mapping[str, Any]) -> record.Origin:
  """Returns the origin that a config's hook points name."""
  source = config.get('hf_hook_point_in')
  if source is None:
    return record.Origin()
  return hooks.origin_of(source, config.get('hf_hook_point_out'))


def _origin_of(
    parts: tuple[str, ...], leaf: re.Match[str] | None
) -> record.Origin:
  """Returns the origin that folder names state.

  Args:
    parts: The names, outermost first.
    leaf: The match of the innermost name with `_LEAF`.
  """
  matches = (_REPOSITORY.search(part) for part in reversed(parts))
  repository = next(filter(None, matches), None)
  model = None
  if repository:
    size, tuned = repository.groups()
    model = f'gemma3_{size}{"_it" if tuned == "it" else ""}'
  site = next(filter(None, (_SITE.fullmatch(p) for p in reversed(parts))), None)
  return record.Origin(
      model=model,
      layer=int(leaf[1]) if leaf else None,
      site=_SITES.get(site[1], site[1]) if site else None,
  )
