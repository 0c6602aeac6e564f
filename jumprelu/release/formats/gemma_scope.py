"""Reader of Gemma Scope's folders (arXiv 2408.05147), which hold a params.npz.

    gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz

The folder names state the layer, the width and the L0. The repository's name
states the model and the site; it may be part of a longer folder name, as in the
Hugging Face cache (models--google--gemma-scope-...). The site is also read from
a folder named after one of our sites, as in our own releases. Gemma Scope's
transcoders read the output of the norm before the MLP without the norm's gain.
"""

import pathlib
import re

from jumprelu import errors, lm
from jumprelu.release import layout
from jumprelu.release.formats import record

_REPOSITORY = re.compile(
    r'gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)(?![a-z])'
)
_SITES = {
    'res': 'resid_post',
    'mlp': 'mlp_out',
    'att': 'attn_heads',
    'transcoders': 'transcoder',
}
_LAYER = re.compile(r'layer_(\d+)')
_WIDTH = re.compile(r'width_(\d+[km]?)')
_L0 = re.compile(r'average_l0_(\d+)(?:_target_[\d.]+)?(?:_\d+)?')


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether the folder holds a params.npz."""
  return (folder / layout.PARAMS).is_file()


def read(folder: pathlib.Path) -> record.Released:
  """Reads one SAE.

  Raises:
    DataError: a tensor is invalid, or its width is not that of the folder's
      name. The message names the file, the tensor, and the expected value.
    UserError: the SAE is one of the embedding.
  """
  path = folder / layout.PARAMS
  parts = path.absolute().parent.parts[-6:]
  if 'embedding' in parts:
    raise errors.UserError(
        f'{path}: SAEs of the embedding are not supported; choose a folder'
        ' layer_L'
    )
  params = record.read_arrays(path, record.plain_names())
  _check_width(path, parts, params['W_enc'].shape[1])
  l0 = _last(_L0, parts)
  meta = {} if l0 is None else {'released_l0': int(l0[1])}
  return record.make_jumprelu(params, origin_of(parts), meta)


def origin_of(parts: tuple[str, ...]) -> record.Origin:
  """Returns the origin that folder names state; inner folders win."""
  layer = _last(_LAYER, parts)
  origin = record.Origin(layer=None if layer is None else int(layer[1]))
  for part in reversed(parts):
    match = _REPOSITORY.search(part)
    if match:
      size, tuned, site = match.groups()
      return origin._replace(
          model=f'gemma2_{size}{"_it" if tuned == "it" else ""}',
          site=_SITES[site],
          input_gain=False if site == 'transcoders' else None,
      )
    if part in lm.SITES:
      return origin._replace(site=part)
  return origin


def _check_width(path: pathlib.Path, parts: tuple[str, ...], width: int):
  """Raises DataError if a folder's name states another width."""
  name = _last(_WIDTH, parts)
  if name is not None and name[1] not in (layout.width_name(width), str(width)):
    raise errors.DataError(
        f'{path}: tensor W_enc has {width} latents, wanted {name[0]}'
    )


def _last(
    pattern: re.Pattern[str], parts: tuple[str, ...]
) -> re.Match[str] | None:
  """Returns the match of the innermost folder name that fully matches."""
  matches = (pattern.fullmatch(part) for part in reversed(parts))
  return next(filter(None, matches), None)
