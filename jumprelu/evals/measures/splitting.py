"""Feature splitting: relation of a wide SAE's latents to a narrow SAE's.

Each latent of the wider SAE is a child of the narrower SAE's latent with the
nearest decoder row, if their cosine is above 0.7 (our own threshold); otherwise
it is new. A latent of the narrower SAE with more than one child has split. It
is kept if its cosine with any row of the wider SAE is above 0.7. Only latents
that fire are compared, and only SAEs with the same inputs and targets.
"""

from typing import Any

import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Float
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import geometry

_NEAR = 0.7


def compare(
    narrow: Float[np.ndarray, 'narrow model'],
    wide: Float[np.ndarray, 'wide model'],
) -> dict[str, Any]:
  """Returns statistics of the latents of `wide` as children of `narrow`.

  Decoder rows have norm 1. `children` is the mean number of a latent
  with any children.
  """
  if not len(narrow) or not len(wide):
    return {}
  best, parent = geometry.nearest(wide, narrow)
  kept, _ = geometry.nearest(narrow, wide)
  children = np.bincount(parent[best > _NEAR], minlength=len(narrow))
  return {
      'nearest_cosine': best.mean(),
      'new_share': np.mean(best <= _NEAR),
      'kept_cosine': kept.mean(),
      'kept_share': np.mean(kept > _NEAR),
      'split_share': np.mean(children > 1),
      'children': metrics.ratio(children.sum(), (children > 0).sum()),
  }


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Compares every pair of members of different widths, in a table."""
  rows: dict[int, Any] = {}

  def decoder(i):
    if i not in rows:
      rows[i] = geometry.alive_rows(context, i)
    return rows[i]

  table = []
  for i, narrow in enumerate(context.members):
    for j, wide in enumerate(context.members):
      same_inputs = narrow.reads.inputs == wide.reads.inputs
      same = same_inputs and narrow.reads.targets == wide.reads.targets
      if same and narrow.sae.width < wide.sae.width:
        table.append(
            {
                'narrow_path': context.names[i],
                'wide_path': context.names[j],
                'narrow_width': narrow.sae.width,
                'wide_width': wide.sae.width,
            }
            | compare(decoder(i), decoder(j))
        )
  return context_lib.Measured([{} for _ in context.members], table)
