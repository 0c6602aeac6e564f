"""Windows of text with a latent's activations, read from a folder of features.

The windows of a latent are its examples and the passages of the text. Those of
half of the documents serve to make explanations, and those of the others to
score them.
"""

from collections.abc import Sequence
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jumprelu.array_typing import Bool, Float, Int
from jumprelu.data import packing
from jumprelu.features import arrow, reading, statistics

# Kinds of windows.
STRONGEST, BAND, SILENT, PASSAGE = range(4)
_COLUMNS = {
    'examples': STRONGEST,
    'band_examples': BAND,
    'silent_examples': SILENT,
}
# Tokens of a window of a passage; about as long as the windows of examples.
_PASSAGE_WINDOW = 32
# Tokens to which SAEs are not applied.
_SPECIAL = (packing.PAD, packing.EOS, packing.BOS)


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
  """Windows of text, joined, with the activations of a latent.

  Attributes:
    starts: Where each window starts in the next two.
    tokens: Token ids.
    values: The latent at each token.
    kinds: The kind of each window.
    documents: The cache position where each window's document starts.
    offsets: The position of each window's first token in its document.
  """

  starts: Int[np.ndarray, ' windows_and_end']
  tokens: Int[np.ndarray, ' window_tokens']
  values: Float[np.ndarray, ' window_tokens']
  kinds: Int[np.ndarray, ' windows']
  documents: Int[np.ndarray, ' windows']
  offsets: Int[np.ndarray, ' windows']

  @property
  def count(self) -> int:
    """The number of windows."""
    return len(self.kinds)

  @functools.cached_property
  def lengths(self) -> Int[np.ndarray, ' windows']:
    """The number of tokens of each window."""
    return np.diff(self.starts)

  @functools.cached_property
  def window(self) -> Int[np.ndarray, ' window_tokens']:
    """The number of each token's window."""
    return np.repeat(np.arange(self.count), self.lengths)

  @functools.cached_property
  def is_text(self) -> Bool[np.ndarray, ' window_tokens']:
    """Whether SAEs are applied to each token."""
    text = np.ones(len(self.tokens), bool)
    for special in _SPECIAL:
      text &= self.tokens != special
    return text

  @functools.cached_property
  def fires(self) -> Bool[np.ndarray, ' windows']:
    """Whether the latent fires anywhere in each window."""
    active = np.bincount(self.window[self.values > 0], minlength=self.count)
    return active > 0

  def span(self, index: int) -> slice:
    """Returns where the tokens of a window are."""
    return slice(int(self.starts[index]), int(self.starts[index + 1]))

  def select(self, index: Int[np.ndarray, ' selected']) -> 'Windows':
    """Returns some of the windows."""
    lengths = self.lengths[index]
    starts = np.append(0, np.cumsum(lengths))
    gather = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    gather += np.repeat(self.starts[:-1][index], lengths)
    return Windows(
        starts,
        self.tokens[gather],
        self.values[gather],
        self.kinds[index],
        self.documents[index],
        self.offsets[index],
    )


def join(parts: Sequence[Windows]) -> Windows:
  """Returns the windows of all parts."""
  lengths = np.concatenate([part.lengths for part in parts])
  names = [field.name for field in dataclasses.fields(Windows)][1:]
  return Windows(
      np.append(0, np.cumsum(lengths)),
      *(np.concatenate([getattr(x, name) for x in parts]) for name in names),
  )


class Split(NamedTuple):
  """The windows from which explanations are made, and those that score them."""

  training: Windows
  held_out: Windows


def split(windows: Windows, *, seed: int) -> Split:
  """Returns the windows by document: half of all documents are held out.

  The half depends on the seed only, so it is the same for all latents.
  """
  held_out = statistics.hashed(seed, windows.documents) % np.uint64(2) == 1
  return Split(
      windows.select(np.flatnonzero(~held_out)),
      windows.select(np.flatnonzero(held_out)),
  )


class Member:
  """The windows of the latents of one member."""

  def __init__(self, folder: str | os.PathLike[str], path: str):
    table = reading.read_table(folder, path, columns=[*_COLUMNS, 'promoted'])
    self._kinds = [_Kind(table[name], kind) for name, kind in _COLUMNS.items()]
    starts, promoted = arrow.lists_of(table['promoted'])
    tokens = arrow.numbers(arrow.fields(promoted)['token'], np.int64)
    self._promoted = starts, tokens
    self._passages, self._firings = _passages(folder, path, len(table))
    self.width = len(table)

  def windows(self, latent: int) -> Windows:
    """Returns all windows of a latent."""
    span = slice(*self._firings.indptr[latent : latent + 2])
    values = np.zeros(len(self._passages.tokens), np.float32)
    values[self._firings.indices[span]] = self._firings.data[span]
    passages = dataclasses.replace(self._passages, values=values)
    return join([*(kind.of(latent) for kind in self._kinds), passages])

  def promoted(self, latent: int) -> list[int]:
    """Returns the tokens that a latent promotes, the largest effect first."""
    starts, tokens = self._promoted
    return tokens[starts[latent] : starts[latent + 1]].tolist()


class _Kind:
  """The examples of one kind, of all latents of a member."""

  def __init__(self, column: Any, kind: int):
    self._starts, records = arrow.lists_of(column)
    parts = arrow.fields(records)
    starts, tokens = arrow.lists_of(parts['tokens'])
    values = arrow.lists_of(parts['values']).values
    index = arrow.numbers(parts['index'], np.int64)
    self._windows = Windows(
        starts.astype(np.int64),
        arrow.numbers(tokens, np.int64),
        arrow.numbers(values, np.float32),
        np.full(len(starts) - 1, kind),
        arrow.numbers(parts['document'], np.int64),
        arrow.numbers(parts['offset'], np.int64) - index,
    )

  def of(self, latent: int) -> Windows:
    """Returns the windows of one latent."""
    return self._windows.select(
        np.arange(self._starts[latent], self._starts[latent + 1])
    )


def _passages(folder, path: str, width: int) -> tuple[Windows, Any]:
  """Returns the passages as windows, and all firings in them by latent."""
  texts = reading.read_texts(folder)
  starts, tokens = arrow.lists_of(texts['tokens'])
  begins, numbers = [], []
  for number, (first, last) in enumerate(
      zip(starts[:-1], starts[1:], strict=True)
  ):
    windows = np.arange(first, last, _PASSAGE_WINDOW)
    begins.append(windows)
    numbers.append(np.full(len(windows), number))
  begin = np.concatenate([*begins, np.zeros(0, np.int64)]).astype(np.int64)
  number = np.concatenate([*numbers, np.zeros(0, np.int64)]).astype(np.int64)
  ids = arrow.numbers(tokens, np.int64)
  offsets = arrow.numbers(texts['offset'], np.int64)
  windows = Windows(
      np.append(begin, len(ids)),
      ids,
      np.zeros(len(ids), np.float32),
      np.full(len(begin), PASSAGE),
      arrow.numbers(texts['document'], np.int64)[number],
      offsets[number] + begin - starts[number],
  )
  firings = reading.read_text_firings(folder, path)
  rows, latents = arrow.lists_of(firings['latents'])
  values = arrow.lists_of(firings['values']).values
  matrix = sparse.csr_array(
      (
          arrow.numbers(values, np.float32),
          arrow.numbers(latents, np.int64),
          rows,
      ),
      (len(ids), width),
  )
  return windows, matrix.tocsc()
