"""Examples of a block of latents: places in the text, and windows around them.

A latent has its strongest firings, firings drawn at random from bands, and
windows in which it does not fire. The bands divide a random sample of its
firings into parts of equal size, from weak to strong.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jumprelu import features
from jumprelu.array_typing import Bool, Float, Int
from jumprelu.data import packing
from jumprelu.features import segments, statistics

# The number of windows among which silent examples are chosen.
_POOL = 256

Places = statistics.Places


class Windows(NamedTuple):
  """The tokens around each of some places, joined.

  Attributes:
    starts: Where each window starts in the next two.
    tokens: Token ids.
    values: The latent at each token.
    index: The index of the place in its window.
  """

  starts: Int[np.ndarray, ' places_and_end']
  tokens: Int[np.ndarray, ' window_tokens']
  values: Float[np.ndarray, ' window_tokens']
  index: Int[np.ndarray, ' places']


class Bands(NamedTuple):
  """The bands of each latent, with the firings that were drawn from them.

  Attributes:
    edges: The least value of each band, and the largest of the last band; NaN
      if the latent has fewer sampled firings than there are bands.
    places: The firings drawn, sorted by latent and band.
    band: The band of each, from 0 for the weakest.
  """

  edges: Float[np.ndarray, 'latents bands_and_end']
  places: Places
  band: Int[np.ndarray, ' firings']


def bands(sample: Places, *, latents: int, config: features.Config) -> Bands:
  """Returns the bands of a random sample of firings.

  Args:
    sample: The sample, sorted by latent and then by hash.
    latents: The number of latents.
    config: The config.
  """
  by_value = np.lexsort((sample.position, sample.value, sample.latent))
  starts = np.searchsorted(sample.latent, np.arange(latents + 1))
  counts = np.diff(starts)
  rank = np.empty(len(by_value), np.int64)
  rank[by_value] = np.arange(len(by_value)) - starts[sample.latent[by_value]]
  band = rank * config.bands // np.maximum(counts, 1)[sample.latent]
  edges = np.full((latents, config.bands + 1), np.nan, np.float32)
  values = sample.value[by_value]
  full = np.flatnonzero(counts >= config.bands)
  ranks = np.arange(config.bands + 1) * counts[full, None]
  ranks = np.minimum(-(-ranks // config.bands), counts[full, None] - 1)
  edges[full] = values[starts[full, None] + ranks]
  # A band is drawn like a latent: those with the smallest hashes.
  keyed = sample._replace(latent=sample.latent * config.bands + band)
  drawn = keyed.first(config.band_examples)
  return Bands(
      edges,
      drawn._replace(latent=drawn.latent // config.bands),
      drawn.latent % config.bands,
  )


class Pool(NamedTuple):
  """Kept positions of different rows, drawn at random from all of a text.

  Attributes:
    segment: The number of the segment of each position.
    at: The position in the segment.
    position: The position in the token cache.
  """

  segment: Int[np.ndarray, ' pool']
  at: Int[np.ndarray, ' pool']
  position: Int[np.ndarray, ' pool']


def draw_pool(
    parts: Iterable[segments.Segment], *, config: features.Config
) -> Pool:
  """Returns the positions with the smallest hashes, one a row."""
  pool, hashes = Pool(*np.zeros((3, 0), np.int64)), np.zeros(0, np.uint64)
  for number, segment in enumerate(parts):
    length = segment.tokens.shape[1]
    every = statistics.hashed(config.seed, segment.cache_positions)
    every = every.reshape(segment.keep.shape)
    every = np.where(segment.keep, every, np.iinfo(np.uint64).max)
    column = every.argmin(axis=1)
    rows = np.flatnonzero(segment.keep.any(axis=1))
    at = rows * length + column[rows]
    part = Pool(np.full(len(rows), number), at, segment.cache_positions[at])
    joined = zip(pool, part, strict=True)
    pool = Pool(*(np.concatenate(fields) for fields in joined))
    hashes = np.concatenate([hashes, every.reshape(-1)[at]])
    order = np.argsort(hashes, kind='stable')[:_POOL]
    pool, hashes = Pool(*(field[order] for field in pool)), hashes[order]
  return pool


def silent(
    pool: Pool, block: segments.Block, *, config: features.Config
) -> Places:
  """Returns windows of the pool in which a latent never fires, at random."""
  fires = np.zeros((block.size, len(pool.at)), bool)
  documents = np.zeros(len(pool.at), np.int64)
  for number, (segment, firings) in enumerate(block):
    members = np.flatnonzero(pool.segment == number)
    documents[members] = segment.documents.reshape(-1)[pool.at[members]]
    span, inside = _spans(segment, pool.at[members], config.window)
    owner = np.full(segment.tokens.size, -1)
    owner[span[inside]] = np.broadcast_to(members[:, None], span.shape)[inside]
    owners = owner[firings.at]
    fires[firings.latents[owners >= 0], owners[owners >= 0]] = True
  latent, index = np.nonzero(~fires)
  hashes = statistics.hashed(
      config.seed, pool.position[index], latent + block.start
  )
  return Places(
      latent,
      np.zeros(len(latent), np.float32),
      pool.segment[index],
      pool.at[index],
      pool.position[index],
      documents[index],
      hashes,
  ).first(config.silent_examples)


def windows(
    records: Sequence[Places], block: segments.Block, *, window: int
) -> list[Windows]:
  """Returns the tokens and activations around the places of each record.

  A window ends where its row or the document ends.
  """
  drafts = [_Draft(places, window) for places in records]
  for number, (segment, firings) in enumerate(block):
    keys = firings.latents * segment.tokens.size + firings.at
    for draft in drafts:
      draft.add(number, segment, keys, firings.values)
  return [draft.windows() for draft in drafts]


class _Draft:
  """The windows around places, which are filled a segment at a time."""

  def __init__(self, places: Places, window: int):
    shape = len(places.at), 2 * window + 1
    self._places = places
    self._window = window
    self._tokens = np.zeros(shape, np.int32)
    self._values = np.zeros(shape, np.float32)
    self._inside = np.zeros(shape, bool)

  def add(self, number: int, segment: segments.Segment, keys, values) -> None:
    """Fills the windows in a segment.

    Args:
      number: The number of the segment.
      segment: The segment.
      keys: Latent times size of the segment plus position, of each firing.
      values: The firings' values.
    """
    index = np.flatnonzero(self._places.segment == number)
    span, inside = _spans(segment, self._places.at[index], self._window)
    self._inside[index] = inside
    self._tokens[index] = segment.tokens.reshape(-1)[span]
    if len(keys):
      latents = self._places.latent[index, None]
      wanted = latents * segment.tokens.size + span
      near = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
      self._values[index] = np.where(keys[near] == wanted, values[near], 0)

  def windows(self) -> Windows:
    """Returns the windows without positions outside of them."""
    return Windows(
        np.append(0, np.cumsum(self._inside.sum(axis=1))),
        self._tokens[self._inside],
        self._values[self._inside],
        self._inside[:, : self._window].sum(axis=1),
    )


def _spans(
    segment: segments.Segment, at: Int[np.ndarray, ' places'], window: int
) -> tuple[Int[np.ndarray, 'places width'], Bool[np.ndarray, 'places width']]:
  """Returns the positions around places, and which belong to the window."""
  length = segment.tokens.shape[1]
  span = at[:, None] + np.arange(-window, window + 1)
  same_row = span // length == at[:, None] // length
  span = np.clip(span, 0, segment.tokens.size - 1)
  documents = segment.documents.reshape(-1)
  is_text = segment.tokens.reshape(-1)[span] != packing.PAD
  same = documents[span] == documents[at][:, None]
  return span, same_row & same & is_text
