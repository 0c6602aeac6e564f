"""Statistics of a block of latents, which are merged over segments of text.

`Statistics.of` summarises one segment, and `merge` adds the summaries of two.
Counts and random draws do not depend on the division into segments. A random
draw of n takes those with the smallest hashes of seed, position and latent, so
that it is the same in any order.
"""

import functools
from typing import NamedTuple

import numpy as np

from jumprelu import features, metrics
from jumprelu.array_typing import Float, Int, Num
from jumprelu.data import packing
from jumprelu.features import segments

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

  def first(self, count: int, *, per_document: bool = False) -> 'Places':
    """Returns the first firings of each latent.

    Args:
      count: The largest number of firings of a latent.
      per_document: Whether to keep at most one firing from each document.
    """
    keys = (self.position, self.order, self.latent)
    chosen = self.select(np.lexsort(keys))
    if per_document:
      index = np.lexsort((chosen.document, chosen.latent))
      pairs = np.stack([chosen.latent[index], chosen.document[index]])
      # The sort is stable, so the first of a pair is the preferred one.
      is_first = np.ones(len(index), bool)
      is_first[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(0)
      chosen = chosen.select(np.sort(index[is_first]))
    rank = np.arange(len(chosen.latent)) - np.searchsorted(
        chosen.latent, chosen.latent
    )
    return chosen.select(rank < count)


class Sums(NamedTuple):
  """Sums over the firings of each latent of a block."""

  count: Int[np.ndarray, ' latents']
  total: Float[np.ndarray, ' latents']
  histogram: Int[np.ndarray, 'latents bins']
  profile: Int[np.ndarray, 'latents position_bins']

  @classmethod
  def of(cls, latents, values, positions, size: int) -> 'Sums':
    """Returns the sums of the firings of `size` latents."""

    def counts(bins, width):
      flat = np.bincount(latents * width + bins, minlength=size * width)
      return flat.reshape(size, width)

    return cls(
        np.bincount(latents, minlength=size),
        sums_of(latents, values, size),
        counts(np.searchsorted(EDGES, values, 'right'), BINS),
        counts(position_bin(positions), POSITION_BINS),
    )


class Tokens(NamedTuple):
  """Counts and sums of the firings of each latent on each token id.

  A pair is the latent times 2^32, plus the token id.
  """

  pair: Int[np.ndarray, ' pairs']
  count: Int[np.ndarray, ' pairs']
  total: Float[np.ndarray, ' pairs']

  @classmethod
  def of(cls, pair, count, total) -> 'Tokens':
    """Returns the record in which each pair is present once."""
    distinct, inverse = np.unique(pair, return_inverse=True)
    size = len(distinct)
    counts = np.bincount(inverse, count, size).astype(np.int64)
    return cls(distinct, counts, sums_of(inverse, total, size))

  def merge(self, other: 'Tokens') -> 'Tokens':
    """Returns the counts and sums of both records."""
    parts = zip(self, other, strict=True)
    return Tokens.of(*(np.concatenate(fields) for fields in parts))

  @property
  def latent(self) -> Int[np.ndarray, ' pairs']:
    """Returns the latent of each pair."""
    return self.pair // _STRIDE

  @property
  def token(self) -> Int[np.ndarray, ' pairs']:
    """Returns the token id of each pair."""
    return self.pair % _STRIDE


_STRIDE = 1 << 32


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
      config: features.Config,
  ) -> 'Statistics':
    """Returns the statistics of one segment.

    Args:
      firings: The block's firings.
      segment: The segment.
      number: Its number.
      first_latent: The number of the block's first latent in the member.
      config: The config.
    """
    latents, size = firings.latents, len(firings.starts) - 1
    positions = packing.positions(segment.tokens).reshape(-1)[firings.at]
    tokens = segment.tokens.reshape(-1)[firings.at].astype(np.int64)
    cache_positions = segment.cache_positions[firings.at]
    hashes = hashed(config.seed, cache_positions, latents + first_latent)
    places = Places(
        latents,
        firings.values,
        np.full(len(latents), number),
        firings.at,
        cache_positions,
        segment.documents.reshape(-1)[firings.at],
        -firings.values,
    )
    return cls(
        Sums.of(latents, firings.values, positions, size),
        _best(places).first(config.examples, per_document=True),
        _drawn(places._replace(order=hashes), firings.starts, config.sample),
        Tokens.of(
            latents * _STRIDE + tokens,
            np.ones(len(latents)),
            firings.values.astype(np.float64),
        ),
    )

  def merge(
      self, other: 'Statistics', *, config: features.Config
  ) -> 'Statistics':
    """Returns the statistics of both parts of the text."""
    return Statistics(
        metrics.add(self.sums, other.sums),
        self.top.join(other.top).first(config.examples, per_document=True),
        self.sample.join(other.sample).first(config.sample),
        self.tokens.merge(other.tokens),
    )


def of_block(block: segments.Block, *, config: features.Config) -> Statistics:
  """Returns the statistics of a block of latents over all segments."""
  parts = (
      Statistics.of(
          firings,
          segment,
          number=number,
          first_latent=block.start,
          config=config,
      )
      for number, (segment, firings) in enumerate(block)
  )
  merge = functools.partial(Statistics.merge, config=config)
  return functools.reduce(merge, parts)


def sums_of(
    bins: Int[np.ndarray, ' entries'],
    values: Num[np.ndarray, ' entries'],
    size: int,
) -> Float[np.ndarray, ' size']:
  """Returns the sum of the values in each of `size` bins, in float64."""
  # `bincount` returns integers if it has no entry.
  return np.bincount(bins, values, size).astype(np.float64)


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


def _best(places: Places) -> Places:
  """Returns the largest firing of each run of one latent in one document.

  It reduces the firings before the sort of `Places.first`.
  """
  if not len(places.latent):
    return places
  starts = np.ones(len(places.latent), bool)
  starts[1:] = (places.latent[1:] != places.latent[:-1]) | (
      places.document[1:] != places.document[:-1]
  )
  run = np.cumsum(starts) - 1
  largest = np.maximum.reduceat(places.value, np.flatnonzero(starts))
  index = np.flatnonzero(places.value == largest[run])
  _, first = np.unique(run[index], return_index=True)
  return places.select(index[first])


def _drawn(places: Places, starts: np.ndarray, count: int) -> Places:
  """Returns the firings of each latent with the smallest hashes."""
  available = np.diff(starts)
  # Half of the share that would be expected to suffice is left as a margin.
  share = np.minimum(2 * count / np.maximum(available, 1), 1)
  limit = (share * float(1 << 63)).astype(np.uint64)
  few = places.select((places.order >> np.uint64(1)) <= limit[places.latent])
  chosen = np.bincount(few.latent, minlength=len(available))
  enough = (chosen >= np.minimum(available, count)).all()
  return (few if enough else places).first(count)
