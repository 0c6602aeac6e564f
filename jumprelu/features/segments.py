"""Segments of text on the disk, with the firings of every member.

A segment is a folder with a file for each array of its text and of the firings
of each member. A firing is a position of the segment (row times length plus
position), a latent and a value. The firings of a member are stored by latent
and then by position; the active latents also by position, for co-activations.
The files are mapped into memory, so only the parts that are used are read.

A segment is complete once its folder has its name, so a collection that was
stopped resumes after the last complete segment.
"""

from collections.abc import Iterable, Iterator, Sequence
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np

from jumprelu.array_typing import Bool, Float, Int
from jumprelu.files import durable

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


class Active(NamedTuple):
  """The active latents of a member at each position of a segment.

  Attributes:
    starts: Where the latents of each position start in the next.
    latents: The latents.
  """

  starts: Int[np.ndarray, ' positions_and_end']
  latents: Int[np.ndarray, ' firings']


class Segment(NamedTuple):
  """Consecutive rows of a text, and the folder with their firings.

  Attributes:
    folder: The folder.
    rows: Numbers of the rows in the token cache.
    tokens: Token ids.
    documents: The cache position where each token's document starts.
    keep: Whether latents were computed at the position.
    bins: The bin of the position profile of each position.
  """

  folder: pathlib.Path
  rows: Int[np.ndarray, ' rows']
  tokens: Int[np.ndarray, 'rows positions']
  documents: Int[np.ndarray, 'rows positions']
  keep: Bool[np.ndarray, 'rows positions']
  bins: Int[np.ndarray, 'rows positions']

  @property
  def cache_positions(self) -> Int[np.ndarray, ' rows_times_positions']:
    """Returns the position in the token cache of each position."""
    length = self.tokens.shape[1]
    starts = self.rows.astype(np.int64)[:, None] * length
    return (starts + np.arange(length)).reshape(-1)

  def firings(self, member: int) -> Firings:
    """Returns a member's firings, which are read from the disk when used."""
    return self._of_member(Firings, member)

  def active(self, member: int) -> Active:
    """Returns a member's active latents, read from the disk when used."""
    return self._of_member(Active, member)

  def _of_member(self, kind, member: int) -> Any:
    names = (_member_name(member, kind, field) for field in kind._fields)
    return kind(*(_load(self.folder, name) for name in names))


def write(segment: Segment, members: Iterable[tuple[Firings, Active]]) -> None:
  """Writes a segment; its folder appears when it is complete."""
  draft = segment.folder.with_name(segment.folder.name + _PARTIAL)
  shutil.rmtree(draft, ignore_errors=True)
  draft.mkdir(parents=True)
  for name in _TEXT:
    np.save(draft / f'{name}.npy', getattr(segment, name))
  for i, parts in enumerate(members):
    for part in parts:
      for field, array in part._asdict().items():
        np.save(draft / f'{_member_name(i, type(part), field)}.npy', array)
  durable.sync_tree(draft)
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
  """Returns a segment, whose text is read from the disk when used."""
  return Segment(folder, *(_load(folder, name) for name in _TEXT))


class Opened(NamedTuple):
  """A segment with the files of one member, mapped into memory."""

  segment: Segment
  firings: Firings
  active: Active


def open_member(parts: Iterable[Segment], member: int) -> list[Opened]:
  """Returns the segments with the files of a member."""
  return [Opened(p, p.firings(member), p.active(member)) for p in parts]


class Block:
  """The text with the firings of a block of latents, a segment at a time.

  Iteration reads (segment, firings) from the disk.

  Attributes:
    opened: The segments with the member's files.
    start: The first latent.
    stop: The latent after the last.
  """

  def __init__(self, opened: Sequence[Opened], start: int, stop: int):
    self.opened = opened
    self.start = start
    self.stop = stop

  @property
  def size(self) -> int:
    """Returns the number of latents."""
    return self.stop - self.start

  def __iter__(self) -> Iterator[tuple[Segment, Firings]]:
    for segment, firings, _ in self.opened:
      yield segment, firings.block(self.start, self.stop)


def read_all(folder: pathlib.Path) -> list[Segment]:
  """Returns the complete segments."""
  return [read(path) for path in find(folder)]


_TEXT = [name for name in Segment._fields if name != 'folder']


def _member_name(member: int, kind: Any, field: str) -> str:
  return f'member_{member:03d}.{kind.__name__.lower()}.{field}'


def _load(folder: pathlib.Path, name: str) -> np.ndarray:
  # Indexing a plain array is faster than indexing NumPy's class of maps.
  return np.asarray(np.load(folder / f'{name}.npy', mmap_mode='r'))
