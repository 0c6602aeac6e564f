"""Statistics of a block of latents, which are merged over segments of text.

`Statistics.of` summarises one segment, and `merge` adds the summaries of two.
Counts and random draws do not depend on the division into segments. A random
draw of n takes those with the smallest hashes of seed, position and latent, so
that it is the same in any order.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jumprelu import features, metrics
from jumprelu.array_typing import Float, Int, Num
from jumprelu.features import ranked_rows, segments

# Bin i of the histogram holds values from EDGES[i - 1] to below EDGES[i], four
# bins to the octave. The first bin holds all values below 2^-8, and the last
# all values from 2^12.
EDGES = (2.0 ** (np.arange(-32, 49) / 4)).astype(np.float32)
BINS = len(EDGES) + 1
# Bin i of the position profile holds positions from 2^i to below 2^(i + 1). BOS
# has position 0, so tokens of text start at 1.
POSITION_BINS = 24


class Places(NamedTuple):
  """Firings of some latents, with their places in the text.

  Attributes:
    latent: The latent's number in its block.
    value: The latent.
    segment: The number of the segment.
    at: The position in the segment.
    position: The position in the token cache.
    document: The cache position where the document starts.
    order: The order of preference within a latent, ascending.
  """

  latent: Int[np.ndarray, ' firings']
  value: Float[np.ndarray, ' firings']
  segment: Int[np.ndarray, ' firings']
  at: Int[np.ndarray, ' firings']
  position: Int[np.ndarray, ' firings']
  document: Int[np.ndarray, ' firings']
  order: np.ndarray

  def select(self, index: np.ndarray) -> 'Places':
    """Returns the firings with these indices or this mask."""
    return Places(*(field[index] for field in self))

  def join(self, *others: 'Places') -> 'Places':
    """Returns the firings of several records."""
    parts = zip(self, *others, strict=True)
    return Places(*(np.concatenate(fields) for fields in parts))

  def first(self, count: int) -> 'Places':
    """Returns the first firings of each latent, sorted by latent and order.

    Args:
      count: The largest number of firings of a latent.
    """
    by_latent = self
    if (self.latent[1:] < self.latent[:-1]).any():
      # This sort is fast where sorted records were joined.
      by_latent = self.select(np.argsort(self.latent, kind='stable'))
    starts = _starts_of_present(by_latent.latent)
    index = ranked_rows.first(
        starts, by_latent.order, count, ties=by_latent.position
    )
    return by_latent.select(index)

  def one_per_document(self) -> 'Places':
    """Returns each latent's preferred firing in each document."""
    order = (self.position, self.order, self.document, self.latent)
    chosen = self.select(np.lexsort(order))
    is_first = np.ones(len(chosen.latent), bool)
    is_first[1:] = (chosen.latent[1:] != chosen.latent[:-1]) | (
        chosen.document[1:] != chosen.document[:-1]
    )
    return chosen.select(is_first)


class Sums(NamedTuple):
  """Sums over the firings of each latent of a block."""

  count: Int[np.ndarray, ' latents']
  total: Float[np.ndarray, ' latents']
  histogram: Int[np.ndarray, 'latents bins']
  profile: Int[np.ndarray, 'latents position_bins']

  @classmethod
  def of(cls, firings: segments.Firings, bins: np.ndarray) -> 'Sums':
    """Returns the sums of firings, given their bins of the position profile."""
    latents, values = firings.latents, firings.values
    size = len(firings.starts) - 1

    def counts(bins, width):
      flat = np.bincount(latents * width + bins, minlength=size * width)
      return flat.reshape(size, width)

    return cls(
        np.diff(firings.starts),
        sums_of(latents, values, size),
        counts(histogram_bin(values), BINS),
        counts(bins, POSITION_BINS),
    )


class Tokens(NamedTuple):
  """Counts and sums of the firings of each latent on each token id.

  Attributes:
    sums: A sparse matrix by rows [latents, token ids], with counts as real
      parts and sums as imaginary parts.
  """

  sums: Any

  @classmethod
  def of(cls, firings: segments.Firings, segment: segments.Segment) -> 'Tokens':
    """Returns the record of the firings of a segment."""
    tokens = segment.tokens.reshape(-1)
    # Sorted by latent, the firings are a matrix by rows. Its product with the
    # matrix of each position's token has counts and sums together.
    values = np.ones(len(firings.at), np.complex128)
    values.imag = firings.values
    fires = sparse.csr_array(
        (values, firings.at, firings.starts),
        (len(firings.starts) - 1, len(tokens)),
    )
    is_token = sparse.csr_array(
        (np.ones(len(tokens)), tokens, np.arange(len(tokens) + 1)),
        (len(tokens), int(tokens.max(initial=0)) + 1),
    )
    sums = fires @ is_token
    sums.sort_indices()
    return cls(sums)

  def merge(self, other: 'Tokens') -> 'Tokens':
    """Returns the counts and sums of both records."""
    shape = np.maximum(self.sums.shape, other.sums.shape)
    for sums in (self.sums, other.sums):
      sums.resize(*shape)
    return Tokens(self.sums + other.sums)

  @property
  def latent(self) -> Int[np.ndarray, ' pairs']:
    """Returns the latent of each pair of a latent and a token."""
    counts = np.diff(self.sums.indptr)
    return np.repeat(np.arange(len(counts)), counts)


class Statistics(NamedTuple):
  """All statistics of a block of latents on a part of the text."""

  sums: Sums
  top: Places
  sample: Places
  tokens: Tokens

  @classmethod
  def of(
      cls,
      firings: segments.Firings,
      segment: segments.Segment,
      *,
      number: int,
      first_latent: int,
      limits: np.ndarray,
      least: Float[np.ndarray, ' latents'],
      config: features.Config,
  ) -> 'Statistics':
    """Returns the statistics of one segment.

    The sample may have more firings than the config's.

    Args:
      firings: The block's firings.
      segment: The segment.
      number: Its number.
      first_latent: The number of the block's first latent in the member.
      limits: The largest hash of a firing in the sample, by latent.
      least: The least value of a firing among the strongest, by latent.
      config: The config.
    """
    hashes = hashed(
        config.seed,
        segment.cache_positions[firings.at],
        firings.latents + first_latent,
    )

    def places(index, order):
      at = firings.at[index]
      return Places(
          firings.latents[index],
          firings.values[index],
          np.full(len(at), number),
          at,
          segment.cache_positions[at],
          segment.documents.reshape(-1)[at],
          order,
      )

    best = _best(firings, segment)
    best = best[firings.values[best] >= least[firings.latents[best]]]
    top = places(best, -firings.values[best]).one_per_document()
    drawn = np.flatnonzero(hashes <= limits[firings.latents])
    return cls(
        Sums.of(firings, segment.bins.reshape(-1)[firings.at]),
        top.first(config.examples),
        places(drawn, hashes[drawn]),
        Tokens.of(firings, segment),
    )

  def merge(
      self, other: 'Statistics', *, config: features.Config
  ) -> 'Statistics':
    """Returns the statistics of both parts of the text."""
    return Statistics(
        metrics.add(self.sums, other.sums),
        self.top.join(other.top).one_per_document().first(config.examples),
        self.sample.join(other.sample),
        self.tokens.merge(other.tokens),
    )


def of_block(
    block: segments.Block,
    *,
    counts: Int[np.ndarray, ' latents'],
    config: features.Config,
) -> Statistics:
  """Returns the statistics of a block of latents over all segments.

  Args:
    block: The block.
    counts: The number of firings of each of its latents.
    config: The config.
  """
  # Half of the share that would be expected to suffice is left as a margin.
  share = 2 * config.sample / np.maximum(counts, 1)
  while True:
    merged = _within(block, np.minimum(share, 1), config)
    drawn = np.bincount(merged.sample.latent, minlength=block.size)
    if (drawn >= np.minimum(counts, config.sample)).all():
      return merged._replace(sample=merged.sample.first(config.sample))
    share *= 2


def _within(
    block: segments.Block,
    shares: Float[np.ndarray, ' latents'],
    config: features.Config,
) -> Statistics:
  """Returns the statistics with this share of each latent's firings sampled."""
  top = np.iinfo(np.uint64).max
  limits = (shares * float(1 << 63)).astype(np.uint64) * np.uint64(2)
  limits = np.where(shares == 1, top, limits)
  least = np.full(block.size, -np.inf, np.float32)
  merged = None
  for number, (segment, firings) in enumerate(block):
    part = Statistics.of(
        firings,
        segment,
        number=number,
        first_latent=block.start,
        limits=limits,
        least=least,
        config=config,
    )
    merged = part if merged is None else merged.merge(part, config=config)
    # Sorted by latent and value, each latent's last value is its least.
    counts = np.bincount(merged.top.latent, minlength=block.size)
    full = np.flatnonzero(counts == config.examples)
    least[full] = merged.top.value[np.cumsum(counts)[full] - 1]
  assert merged is not None, 'a text has at least one segment'
  return merged


def sums_of(
    bins: Int[np.ndarray, ' entries'],
    values: Num[np.ndarray, ' entries'],
    size: int,
) -> Float[np.ndarray, ' size']:
  """Returns the sum of the values in each of `size` bins, in float64."""
  # `bincount` returns integers if it has no entry.
  return np.bincount(bins, values, size).astype(np.float64)


def histogram_bin(
    values: Float[np.ndarray, ' values'],
) -> Int[np.ndarray, ' values']:
  """Returns the bin of the histogram of each value."""
  # The same as a binary search, but several times faster. Exponent and upper
  # bits of the mantissa of a float32 are an integer that grows with the value.
  cell = np.ascontiguousarray(values, np.float32).view(np.int32) >> _CELL_BITS
  cell = np.clip(cell - _FIRST_CELL, 0, len(_CELL_BINS) - 1)
  bins = _CELL_BINS[cell]
  # A cell contains at most one edge, the lower edge of the next bin.
  return bins + (values >= _NEXT_EDGE[bins])


_CELL_BITS = 20
_FIRST_CELL = (EDGES[0].view(np.int32) >> _CELL_BITS) - 1
_LAST_CELL = (EDGES[-1].view(np.int32) >> _CELL_BITS) + 1
_CELLS = np.arange(_FIRST_CELL, _LAST_CELL + 1, dtype=np.int32) << _CELL_BITS
_CELL_BINS = np.searchsorted(EDGES, _CELLS.view(np.float32), 'right')
_NEXT_EDGE = np.append(EDGES, np.float32(np.nan))  # No value reaches NaN.


def position_bin(
    positions: Int[np.ndarray, '*shape'],
) -> Int[np.ndarray, '*shape']:
  """Returns the bin of the position profile of positions in a document."""
  # The exponent of a float is exact, which log2 is not.
  exponent = np.frexp(np.maximum(positions, 1).astype(np.float64))[1] - 1
  return np.minimum(exponent, POSITION_BINS - 1)


def hashed(
    seed: int,
    positions: Int[np.ndarray, '*shape'],
    latents: Int[np.ndarray, '*shape'] | int = 0,
) -> np.ndarray:
  """Returns a 64-bit hash of seed, cache position and latent.

  It is the finaliser of SplitMix64, once for each of the three.
  """
  state = _mix(np.full(1, seed, np.uint64))
  state = _mix(state ^ np.asarray(positions).astype(np.uint64))
  return _mix(state ^ np.asarray(latents).astype(np.uint64))


def _mix(x: np.ndarray) -> np.ndarray:
  with np.errstate(over='ignore'):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _best(
    firings: segments.Firings, segment: segments.Segment
) -> Int[np.ndarray, ' runs']:
  """Returns the largest firing of each run of one latent in one document.

  It reduces the firings before they are sorted.
  """
  if not len(firings.at):
    return np.zeros(0, np.int64)
  document = segment.documents.reshape(-1)[firings.at]
  starts = np.ones(len(document), bool)
  starts[1:] = document[1:] != document[:-1]
  sizes = np.diff(firings.starts)
  starts[firings.starts[:-1][sizes > 0]] = True
  start = np.flatnonzero(starts)
  largest = np.maximum.reduceat(firings.values, start)
  counts = np.diff(np.append(start, len(document)))
  index = np.flatnonzero(firings.values == np.repeat(largest, counts))
  # Of equal values, the first of the run is chosen.
  run = np.searchsorted(start, index, 'right')
  return index[np.append(True, run[1:] != run[:-1])]


def _starts_of_present(
    latents: Int[np.ndarray, ' entries'],
) -> Int[np.ndarray, ' rows_and_end']:
  """Returns where the entries of each latent start that has any."""
  changes = np.flatnonzero(latents[1:] != latents[:-1]) + 1
  return np.concatenate([[0], changes, [len(latents)]])
