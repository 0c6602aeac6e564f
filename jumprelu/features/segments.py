"""Segments of text on the disk, with the firings of every member.

A segment is a folder: `text.npz` has its rows, and three files per member have
the firings, sorted by latent and then by position, and the index where each
latent's firings start. A firing is a position of the segment (row times length
plus position) and a value. A segment is complete once its folder has its name,
so a collection that was stopped resumes after the last complete segment.
"""

from collections.abc import Iterator, Sequence
import pathlib
import shutil
from typing import NamedTuple

import numpy as np

from jumprelu.array_typing import Bool, Float, Int

_TEXT = 'text.npz'
_PARTIAL = '.partial'


class Firings(NamedTuple):
  """Firings of some latents in a segment, sorted by latent, then position.

  Attributes:
    starts: Where the firings of each latent start in the next two.
    at: Positions of the segment.
    values: The latents at these positions.
  """

  starts: Int[np.ndarray, ' latents_and_end']
  at: Int[np.ndarray, ' firings']
  values: Float[np.ndarray, ' firings']

  @property
  def latents(self) -> Int[np.ndarray, ' firings']:
    """Returns the latent of each firing, counted from the first of these."""
    counts = np.diff(self.starts)
    return np.repeat(np.arange(len(counts)), counts)

  def block(self, start: int, stop: int) -> 'Firings':
    """Returns the firings of latents `start` to `stop`, read into memory."""
    starts = np.asarray(self.starts[start : stop + 1])
    span = slice(starts[0], starts[-1])
    return Firings(
        starts - starts[0],
        np.asarray(self.at[span], np.int64),
        np.asarray(self.values[span]),
    )


class Segment(NamedTuple):
  """Consecutive rows of a text, in memory, and the folder with its firings.

  Attributes:
    folder: The folder.
    rows: Numbers of the rows in the token cache.
    tokens: Token ids.
    documents: The cache position where each token's document starts.
    keep: Whether latents were computed at the position.
  """

  folder: pathlib.Path
  rows: Int[np.ndarray, ' rows']
  tokens: Int[np.ndarray, 'rows positions']
  documents: Int[np.ndarray, 'rows positions']
  keep: Bool[np.ndarray, 'rows positions']

  @property
  def cache_positions(self) -> Int[np.ndarray, ' rows_times_positions']:
    """Returns the position in the token cache of each position."""
    length = self.tokens.shape[1]
    starts = self.rows.astype(np.int64)[:, None] * length
    return (starts + np.arange(length)).reshape(-1)

  def firings(self, member: int) -> Firings:
    """Returns a member's firings, which are read from the disk when used."""

    def load(field):
      return np.load(_path(self.folder, member, field), mmap_mode='r')

    return Firings(*map(load, Firings._fields))


def write(segment: Segment, firings: Sequence[Firings]) -> None:
  """Writes a segment; its folder appears when it is complete."""
  draft = segment.folder.with_name(segment.folder.name + _PARTIAL)
  shutil.rmtree(draft, ignore_errors=True)
  draft.mkdir(parents=True)
  arrays = segment._asdict()
  del arrays['folder']
  np.savez(draft / _TEXT, **arrays)
  for i, member in enumerate(firings):
    for field, array in member._asdict().items():
      np.save(_path(draft, i, field), array)
  draft.rename(segment.folder)


def folder_of(folder: pathlib.Path, number: int) -> pathlib.Path:
  """Returns the folder of a segment."""
  return folder / f'segment_{number:06d}'


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of the complete segments, in order."""
  return sorted(
      path
      for path in folder.glob('segment_*')
      if not path.name.endswith(_PARTIAL)
  )


def read(folder: pathlib.Path) -> Segment:
  """Returns a segment with its text."""
  with np.load(folder / _TEXT) as arrays:
    return Segment(folder, **arrays)


class Block:
  """The text with the firings of a block of latents, a segment at a time.

  Iteration reads (segment, firings) from the disk.

  Attributes:
    folder: The folder of the segments.
    member: The number of the member.
    start: The first latent.
    stop: The latent after the last.
  """

  def __init__(self, folder: pathlib.Path, member: int, start: int, stop: int):
    self.folder = folder
    self.member = member
    self.start = start
    self.stop = stop

  @property
  def size(self) -> int:
    """Returns the number of latents."""
    return self.stop - self.start

  def __iter__(self) -> Iterator[tuple[Segment, Firings]]:
    for segment in read_all(self.folder):
      firings = segment.firings(self.member)
      yield segment, firings.block(self.start, self.stop)


def read_all(folder: pathlib.Path) -> Iterator[Segment]:
  """Yields the complete segments, one at a time in memory."""
  for path in find(folder):
    yield read(path)


def _path(folder: pathlib.Path, member: int, field: str) -> pathlib.Path:
  return folder / f'member_{member:03d}.{field}.npy'
