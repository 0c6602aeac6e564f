"""Export in the layout of Gemma Scope's repositories: one per model and site.

    gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz

Readers take model, site, layer and width from these names, because there is no
config. The names are those of Google's repositories, so upload each folder as a
repository whose name contains the folder's.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from jumprelu.files import npz
from jumprelu.release import layout
from jumprelu.release.exports import source as source_lib
from jumprelu.release.formats import hooks

NAME = 'gemma_scope'
_SITES = {
    'resid_post': 'res',
    'mlp_out': 'mlp',
    'attn_heads': 'att',
    'transcoder': 'transcoders',
}
# The widths that SAELens takes from a folder's name.
_WIDTHS = ('4k', '16k', '32k', '65k', '131k', '262k', '524k', '1m')
# SAEBench refuses rows whose norm differs from 1 by more.
_NORM_TOLERANCE = 1e-5


def write(sources: Sequence[source_lib.Source], out: pathlib.Path) -> list[str]:
  """Writes a folder for each model and site; returns warnings.

  Raises:
    UserError: the format cannot hold an SAE; the message names it.
  """
  warnings = []
  folders = layout.resolve_collisions(
      [_folder(source) for source in sources],
      [(source.path,) for source in sources],
  )
  for source, name in zip(sources, folders, strict=True):
    if source.released.sae.skip:
      raise source.refuse(NAME, 'has a skip term, and the format has none')
    if source.released.origin.input_gain:
      raise source.refuse(
          NAME,
          "reads the norm's output with its gain, and this format's transcoders"
          ' read it without; use --to=gemma_scope_2 or --to=saelens',
      )
    params = source_lib.as_jumprelu(source, to=NAME)
    (out / name).mkdir(parents=True)
    npz.write_npz(out / name / layout.PARAMS, params)
    warnings += _warnings(source, params)
  return warnings


def _folder(source: source_lib.Source) -> str:
  """Returns the SAE's folder, below that of its repository."""
  origin = source.released.origin
  if source.l0 is None:
    raise source.refuse(
        NAME, 'its L0, which is part of the folder name, is unknown'
    )
  width = layout.width_name(source.released.sae.width)
  site = _SITES.get(str(origin.site), str(origin.site))
  return (
      f'{_repository(str(origin.model))}-{site}/layer_{origin.layer}'
      f'/width_{width}/average_l0_{layout.l0_name(source.l0)}'
  )


def _repository(model: str) -> str:
  """Returns a repository's name without the site."""
  public = hooks.public_name(model)
  if public and public.startswith('gemma-2-'):
    size = public.split('-')[2]
    return f'gemma-scope-{size}-{"it" if public.endswith("-it") else "pt"}'
  return f'gemma-scope-{pathlib.PurePath(model).name}'.replace('/', '-')


def _warnings(
    source: source_lib.Source, params: dict[str, np.ndarray]
) -> list[str]:
  warnings = []
  model = str(source.released.origin.model)
  if not (hooks.public_name(model) or '').startswith('gemma-2-'):
    warnings.append(
        f'{model} is not a model of Gemma Scope: its readers know Gemma 2 2B,'
        ' 9B and 27B only, and would attach these SAEs to the wrong model; use'
        ' --to=saelens'
    )
  width = layout.width_name(source.released.sae.width)
  if width not in _WIDTHS:
    warnings.append(
        f'{source.path}: width {width} is unknown to SAELens, which reads'
        f' {", ".join(_WIDTHS)} from folder names; use --to=saelens'
    )
  norms = np.linalg.norm(params['W_dec'].astype(np.float64), axis=1)
  if np.abs(norms - 1).max() > _NORM_TOLERANCE:
    warnings.append(
        f'{source.path}: decoder rows are not of unit norm, which SAEBench'
        ' refuses'
    )
  return warnings
