"""Passages of text, with all active latents at each of their tokens.

A passage is a number of consecutive kept tokens of one document. The documents
are drawn at random: those with the smallest hashes of seed and document. Those
that are shorter than a passage are only chosen if there are too few others.
"""

from collections.abc import Iterable
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu import features
from jumprelu.array_typing import Float, Int
from jumprelu.features import arrow, segments, statistics


class Passages(NamedTuple):
  """Places of passages in the text, in random order.

  Attributes:
    segment: The number of the segment.
    at: The position of the first token in the segment.
    position: Its position in the token cache.
    document: The cache position where the document starts.
    length: The number of tokens.
  """

  segment: Int[np.ndarray, ' passages']
  at: Int[np.ndarray, ' passages']
  position: Int[np.ndarray, ' passages']
  document: Int[np.ndarray, ' passages']
  length: Int[np.ndarray, ' passages']

  @property
  def starts(self) -> Int[np.ndarray, ' passages_and_end']:
    """Returns the number of tokens before each passage."""
    return np.append(0, np.cumsum(self.length))


class TextFirings(NamedTuple):
  """The active latents of a member at each token of the passages.

  Attributes:
    starts: Where the latents of each token start in the next two.
    latents: The active latents, from the largest to the smallest value.
    values: Their values.
  """

  starts: Int[np.ndarray, ' tokens_and_end']
  latents: Int[np.ndarray, ' firings']
  values: Float[np.ndarray, ' firings']


def draw(
    parts: Iterable[segments.Segment], *, config: features.Config
) -> Passages:
  """Returns the passages of a text, at most one from each document."""
  drawn = Passages(*np.zeros((5, 0), np.int64))
  for number, segment in enumerate(parts):
    joined = zip(drawn, _candidates(segment, number, config), strict=True)
    drawn = Passages(*(np.concatenate(fields) for fields in joined))
    hashes = statistics.hashed(config.seed, drawn.document)
    is_short = drawn.length < config.text_length
    order = np.lexsort((drawn.position, hashes, is_short))
    _, first = np.unique(drawn.document[order], return_index=True)
    order = order[np.sort(first)[: config.texts]]
    drawn = Passages(*(field[order] for field in drawn))
  return drawn


def _candidates(
    segment: segments.Segment, number: int, config: features.Config
) -> Passages:
  """Returns the first tokens of each run of kept tokens of a document."""
  ends = ~segment.keep
  ends[:, 0] = True
  ends[:, 1:] |= segment.documents[:, 1:] != segment.documents[:, :-1]
  # A run ends before the next position that is not kept or of another document.
  # One of these begins a run if it is kept, else the position after it may.
  stops = np.append(np.flatnonzero(ends), ends.size)
  begins = stops[:-1] + ~segment.keep.reshape(-1)[stops[:-1]]
  length = stops[1:] - begins
  begins, length = begins[length > 0], length[length > 0]
  return Passages(
      np.full(len(begins), number),
      begins,
      segment.cache_positions[begins],
      segment.documents.reshape(-1)[begins],
      np.minimum(length, config.text_length),
  )


def write(
    passages: Passages,
    parts: Iterable[segments.Segment],
    *,
    path: pathlib.Path,
) -> None:
  """Writes the passages of these segments as Parquet."""
  tokens = np.zeros(passages.length.sum(), np.int32)
  for number, segment in enumerate(parts):
    place, at = _places(passages, number)
    tokens[place] = segment.tokens.reshape(-1)[at]
  columns = {
      'text': np.arange(len(passages.at), dtype=np.int32),
      'document': passages.document,
      'position': passages.position,
      'offset': passages.position - passages.document,
      'tokens': arrow.lists(passages.starts, tokens),
  }
  arrow.write(path, columns)


def firings(
    passages: Passages, opened: Iterable[segments.Opened]
) -> TextFirings:
  """Returns the active latents of a member at the tokens of the passages."""
  chosen = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, 'f4'))]
  for number, (segment, every, _) in enumerate(opened):
    place, at = _places(passages, number)
    places = np.full(segment.tokens.size, -1)
    places[at] = place
    places = places[every.at]
    index = np.flatnonzero(places >= 0)
    latents = np.searchsorted(every.starts, index, 'right') - 1
    chosen.append((places[index], latents, every.values[index]))
  places, latents, values = (
      np.concatenate(fields) for fields in zip(*chosen, strict=True)
  )
  order = np.lexsort((latents, -values, places))
  starts = np.searchsorted(places[order], np.arange(passages.starts[-1] + 1))
  return TextFirings(starts, latents[order], values[order])


def write_firings(
    passages: Passages, active: TextFirings, *, path: pathlib.Path
) -> None:
  """Writes a row for each token of the passages, with its active latents."""
  numbers = np.repeat(np.arange(len(passages.at)), passages.length)
  columns: dict[str, Any] = {
      'text': numbers.astype(np.int32),
      'index': _indices(passages).astype(np.int32),
      'latents': arrow.lists(active.starts, active.latents.astype(np.int32)),
      'values': arrow.lists(active.starts, active.values),
  }
  arrow.write(path, columns)


def _places(
    passages: Passages, number: int
) -> tuple[Int[np.ndarray, ' tokens'], Int[np.ndarray, ' tokens']]:
  """Returns the tokens of a segment's passages, and where they are in it.

  Tokens are numbered over all passages.
  """
  place = np.flatnonzero(np.repeat(passages.segment, passages.length) == number)
  at = np.repeat(passages.at, passages.length) + _indices(passages)
  return place, at[place]


def _indices(passages: Passages) -> Int[np.ndarray, ' tokens']:
  """Returns the index of each token in its passage."""
  starts = np.repeat(passages.starts[:-1], passages.length)
  return np.arange(len(starts)) - starts
