"""Stability over seeds: the share of latents that another seed reproduces.

Members that differ only in their seed are compared in pairs. Latents that fire
are matched one to one so as to maximise the sum of the cosines of their decoder
rows (the Hungarian method: seconds at 4,096 latents, minutes at 16,384). A
latent is reproduced if its match has a cosine above 0.7 (our own threshold).
The table also has the mean cosine of the nearest row, whether matched or not.
"""

from typing import Any

import numpy as np

from jumprelu.array_typing import Float
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import geometry

_NEAR = 0.7


def match(
    a: Float[np.ndarray, 'a model'], b: Float[np.ndarray, 'b model']
) -> dict[str, Any]:
  """Returns statistics of the best matching of two decoders' unit rows.

  `matched_share` is a share of the larger decoder's rows, so that rows without
  a partner count as not reproduced.
  """
  from scipy import optimize

  if not len(a) or not len(b):
    return {}
  cosines = a @ b.T
  rows, columns = optimize.linear_sum_assignment(cosines, maximize=True)
  matched = cosines[rows, columns]
  return {
      'matched_cosine': matched.mean(),
      'matched_share': (matched > _NEAR).sum() / max(len(a), len(b)),
      'nearest_cosine': (cosines.max(1).mean() + cosines.max(0).mean()) / 2,
  }


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Compares every pair of members that differ only in their seed.

  A member's row has the means over its pairs.
  """
  table, pairs_of = [], [[] for _ in context.members]
  for i, kind in enumerate(context.kinds):
    for j in range(i):
      if kind is None or context.kinds[j] != kind:
        continue
      pair = match(
          geometry.alive_rows(context, j), geometry.alive_rows(context, i)
      )
      table.append(
          {'path': context.names[j], 'other_path': context.names[i]} | pair
      )
      for k in (i, j):
        pairs_of[k].append(pair)
  columns = [
      {
          f'seed_{name}': np.mean([p.get(name, np.nan) for p in pairs])
          for name in ('matched_cosine', 'matched_share')
          if pairs
      }
      for pairs in pairs_of
  ]
  return context_lib.Measured(columns, table)
