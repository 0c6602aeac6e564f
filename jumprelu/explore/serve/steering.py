"""Edits of a member's latents as the compiled passes take them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jumprelu.evals import edits as edits_lib
from jumprelu.explore.serve import fields
from jumprelu.explore.serve import programs as passes

# The largest number of latents that are edited at once.
MAX_EDITS = 4
_END = np.iinfo(np.int32).max


def compiled(
    member: passes.Member, arrays: Any, edits: Sequence[fields.Edit]
) -> dict[str, Any]:
  """Returns edits as arguments of `programs.generate`.

  There are always `MAX_EDITS`, so that any number of edits has the same
  program. Those that are left have an empty span of tokens.

  Raises:
    Refused: The member has no such latent.
  """
  width = member.sae.width
  for edit in edits:
    if edit.latent >= width:
      raise fields.Refused(
          400,
          f'edits: latent {edit.latent}: this member has 0 to {width - 1}',
      )
  rest = MAX_EDITS - len(edits)
  whole = [*edits, *[fields.Edit(0, 'add', 0.0)] * rest]
  latents, ops, values = map(list, zip(*whole, strict=True))
  spans = [[(0, _END)]] * len(edits) + [[(0, 0)]] * rest
  made = edits_lib.arrays(arrays, latents, ops, values, spans)
  target = edits_lib.Target(member.reads.target, member.sae, member.reads)
  return {'edited': (target,), 'edit_arrays': (made,)}
