"""Latents that fire on the same tokens.

The Jaccard index of two latents is the number of tokens on which both fire,
over the number on which at least one fires. Counts are exact, for all pairs.
They are products of sparse matrices, whose cost depends on the number of pairs
of firings on a token and hardly on the width. An array has an entry for each
pair of a latent of the block and a latent that ever fires with it.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jumprelu.array_typing import Float, Int
from jumprelu.features import ranked_rows, segments

# A product with a dense matrix of 16-bit numbers has vector instructions, so an
# entry costs a fraction of an entry of a sparse product.
_DENSE_GAIN = 32
# Entries of a dense matrix, few enough for the processor's cache.
_DENSE_ENTRIES = 1 << 20


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
  both = sparse.csr_array((block.size, width), dtype=np.int32)
  for (_, firings), opened in zip(block, block.opened, strict=True):
    active = opened.active
    positions = len(active.starts) - 1
    # By latent and by position, the firings are matrices by rows.
    of_block = _ones(firings.at, firings.starts, (block.size, positions))
    every = _ones(active.latents, active.starts, (positions, width))
    both = both + _product(of_block, every)
  both.sort_indices()
  sizes = np.diff(both.indptr)
  rows = np.repeat(np.arange(block.size), sizes)
  either = counts[rows + block.start] + counts[both.indices] - both.data
  jaccard = both.data / either
  # The latent itself is left out.
  others = np.flatnonzero(both.indices != rows + block.start)
  starts = ranked_rows.starts_of(rows[others], block.size)
  index = others[ranked_rows.first(starts, -jaccard[others], count)]
  return Coactive(
      ranked_rows.starts_of(rows[index], block.size),
      both.indices[index],
      jaccard[index],
      both.data[index].astype(np.int64),
  )


def _product(of_block: Any, every: Any) -> Any:
  """Returns the product of the block's firings and those of all latents."""
  pairs = np.diff(every.indptr)[of_block.indices].sum()
  if of_block.nnz * every.shape[1] > _DENSE_GAIN * pairs:
    return of_block @ every
  both = np.zeros((of_block.shape[0], every.shape[1]), np.int32)
  by_position = of_block.T.tocsr().astype(np.uint16)
  every = every.astype(np.uint16)
  # Counts of at most this number of positions fit into 16 bits.
  rows = min(max(1, _DENSE_ENTRIES // every.shape[1]), 1 << 15)
  for start in range(0, every.shape[0], rows):
    part = slice(start, start + rows)
    both += by_position[part].T @ every[part].toarray()
  return sparse.csr_array(both)


def _ones(columns, starts, shape: tuple[int, int]) -> Any:
  """Returns the matrix by rows with ones in these columns."""
  ones = np.ones(len(columns), np.int32)
  return sparse.csr_array((ones, columns, starts), shape)
