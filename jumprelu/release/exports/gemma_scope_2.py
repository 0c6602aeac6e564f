"""Export in the layout of Gemma Scope 2: params.safetensors and config.json.

    gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_52/
    gemma-scope-2-1b-pt/transcoder/layer_13_width_16k_l0_48_affine/

Names of tensors have lower case, and the skip term of a transcoder is
`affine_skip_connection`. Folders are named by the measured L0, where Google's
have small, medium or big. The hook points in config.json are authoritative.
"""

from collections.abc import Sequence
import pathlib

from jumprelu.files import json_files
from jumprelu.release import layout
from jumprelu.release.exports import source as source_lib
from jumprelu.release.formats import hooks
from jumprelu.release.formats.gemma_scope_2 import PARAMS, SKIP

NAME = 'gemma_scope_2'
# The folder of the heads before the output projection.
_SITES = {'attn_heads': 'attn_out'}


def write(sources: Sequence[source_lib.Source], out: pathlib.Path) -> list[str]:
  """Writes a folder for each SAE; returns warnings.

  Raises:
    UserError: the format cannot hold an SAE; the message names it.
  """
  warnings, taken = [], set()
  for source in sources:
    sae, origin = source.released.sae, source.released.origin
    known = hooks.hooks_of(origin)
    if 'huggingface' not in known:
      raise source.refuse(
          NAME,
          "reads the norm's output without its gain, and this format's"
          ' transcoders read it with the gain; use --to=gemma_scope',
      )
    params = source_lib.as_jumprelu(source, to=NAME)
    folder = _folder(source)
    if folder in taken:
      raise source.refuse(NAME, f'another SAE has the same folder {folder}')
    taken.add(folder)
    model, notes = source_lib.model_name(source)
    warnings += notes
    if not notes and not model.startswith('gemma-3-'):
      warnings.append(
          f'{model} is not a model of Gemma Scope 2; some of its readers assume'
          ' Gemma 3'
      )
    config = {
        'architecture': 'jump_relu',
        'model_name': model if notes else f'google/{model}',
        'width': sae.width,
        'l0': source.l0,
        'type': 'transcoder' if source.transcodes else 'sae',
        'hf_hook_point_in': known['huggingface'][0],
        'hf_hook_point_out': known['huggingface'][1] or known['huggingface'][0],
        'affine_connection': sae.skip,
    }
    arrays = {
        SKIP if name == 'W_skip' else name.lower(): value
        for name, value in params.items()
    }
    (out / folder).mkdir(parents=True)
    source_lib.write_safetensors(out / folder / PARAMS, arrays)
    json_files.write_json(out / folder / layout.CONFIG, config)
  return warnings


def _folder(source: source_lib.Source) -> str:
  origin, sae = source.released.origin, source.released.sae
  if source.l0 is None:
    raise source.refuse(
        NAME, 'its L0, which is part of the folder name, is unknown'
    )
  model, _ = source_lib.model_name(source)
  name = model.removeprefix('gemma-3-')
  # The pretrained model of the smallest size has no suffix.
  if model.startswith('gemma-3-') and not name.endswith(('-it', '-pt')):
    name += '-pt'
  leaf = (
      f'layer_{origin.layer}_width_{layout.width_name(sae.width)}'
      f'_l0_{layout.l0_name(source.l0)}{"_affine" if sae.skip else ""}'
  )
  site = _SITES.get(str(origin.site), str(origin.site))
  return f'gemma-scope-2-{name}/{site}/{leaf}'
