"""The L0s of all SAEs of Gemma Scope: reference points of a frontier.

Gemma Scope (arXiv 2408.05147, section 4) names its files by the mean L0 that
was measured; its sparsity coefficients are not published. gemma_scope_l0.json
holds what public loaders list of its repositories: 2,430 SAEs, 26 of them
transcoders and 8 of the embedding.
"""

import functools
import json
import pathlib

from jumprelu import errors
from jumprelu.release import layout

_FILE = pathlib.Path(__file__).with_name('gemma_scope_l0.json')


def l0s(
    repository: str, *, layer: int | str, width: int | str
) -> tuple[int, ...]:
  """Returns the L0s of the SAEs of one layer and width, rising.

  Args:
    repository: The name, `gemma-scope-2b-pt-res`, with or without `google/`.
    layer: The layer, or 'embedding'.
    width: The number of latents, or the folder's name of it: 16384 or '16k'.

  Raises:
    UserError: if nothing was released there; it names what was.
  """
  name = layout.width_name(width) if isinstance(width, int) else width
  found = _listed()
  for field, key in (
      ('repository', repository.removeprefix('google/')),
      ('layer', str(layer)),
      ('width', name),
  ):
    if key not in found:
      raise errors.UserError(
          f'{field} {key!r}: no SAE of Gemma Scope; known: {", ".join(found)}'
      )
    found = found[key]
  return tuple(found)


@functools.cache
def _listed():
  """Returns {repository: {layer: {width: [L0]}}}."""
  return json.loads(_FILE.read_text('utf-8'))
