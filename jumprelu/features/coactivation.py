"""Latents that fire on the same tokens.

The Jaccard index of two latents is the number of tokens on which both fire,
over the number on which at least one fires. Counts are exact, for all pairs.
They are products of sparse matrices, whose cost depends on the number of pairs
of firings on a token and hardly on the width. An array has an entry for each
pair of a latent of the block and a latent that ever fires with it.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from jumprelu.array_typing import Float, Int
from jumprelu.features import segments


class Coactive(NamedTuple):
  """The latents with the largest Jaccard index, in descending order.

  Latents that never fire together with the latent are left out. Of equal ones,
  the one with the smallest number is first.

  Attributes:
    starts: Where the entries of each latent of the block start.
    latent: The co-active latent.
    jaccard: The Jaccard index.
    both: The number of tokens on which both fire.
  """

  starts: Int[np.ndarray, ' latents_and_end']
  latent: Int[np.ndarray, ' entries']
  jaccard: Float[np.ndarray, ' entries']
  both: Int[np.ndarray, ' entries']


def coactive(
    block: segments.Block, *, counts: Int[np.ndarray, ' width'], count: int
) -> Coactive:
  """Returns the co-activations of a block of latents.

  Args:
    block: The block.
    counts: The number of firings of each latent of the member.
    count: The number of co-active latents to return.
  """
  width = len(counts)
  both = sparse.csr_array((block.size, width), dtype=np.int64)
  for segment in segments.read_all(block.folder):
    firings = segment.firings(block.member)
    # Sorted by latent, the firings are a matrix by columns.
    ones = np.ones(len(firings.at), np.int64)
    matrix = sparse.csc_array(
        (ones, firings.at, firings.starts), shape=(segment.tokens.size, width)
    )
    selected = matrix[:, block.start : block.stop]
    both = both + selected.T.tocsr() @ matrix.tocsr()
  both.sort_indices()
  rows = np.repeat(np.arange(block.size), np.diff(both.indptr))
  either = counts[rows + block.start] + counts[both.indices] - both.data
  jaccard = both.data / either
  # The latent itself is left out.
  jaccard[both.indices == rows + block.start] = 0
  chosen = [
      start + _first(jaccard[start:stop], count)
      for start, stop in zip(both.indptr[:-1], both.indptr[1:], strict=True)
  ]
  index = np.concatenate(chosen)
  return Coactive(
      np.append(0, np.cumsum([len(part) for part in chosen])),
      both.indices[index],
      jaccard[index],
      both.data[index],
  )


def _first(
    values: Float[np.ndarray, ' entries'], count: int
) -> Int[np.ndarray, ' chosen']:
  """Returns the indices of the largest positive values; ties in order."""
  index = np.flatnonzero(values)
  if len(index) > count:
    # A partition alone would choose among equal values at random.
    least = np.partition(values[index], -count)[-count]
    index = index[values[index] >= least]
  return index[np.argsort(-values[index], kind='stable')][:count]
