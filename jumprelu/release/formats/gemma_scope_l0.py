"""The L0s of Gemma Scope's SAEs, as reference points of a frontier.

Gemma Scope (arXiv 2408.05147, section 4) names its folders by the measured mean
L0 and does not publish its sparsity coefficients. gemma_scope_l0.json lists the
L0s of 2,430 SAEs, including 26 transcoders and 8 SAEs of the embedding. These
are the SAEs that public loaders list too.
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
  """Returns the L0s of the SAEs of one layer and width, in ascending order.

  Args:
    repository: The repository's name, such as `gemma-scope-2b-pt-res`, with or
      without `google/`.
    layer: The layer, or 'embedding'.
    width: The number of latents, such as 16384, or its name in folders: '16k'.

  Raises:
    UserError: no such SAE was released; the message lists the known values.
  """
  name = layout.width_name(width) if isinstance(width, int) else width
  level = _listed()
  for field, key in (
      ('repository', repository.removeprefix('google/')),
      ('layer', str(layer)),
      ('width', name),
  ):
    if key not in level:
      raise errors.UserError(
          f'{field} {key!r}: not in Gemma Scope; known: {", ".join(level)}'
      )
    level = level[key]
  return tuple(level)


@functools.cache
def _listed():
  """Returns the L0s as {repository: {layer: {width: [L0]}}}."""
  return json.loads(_FILE.read_text('utf-8'))
