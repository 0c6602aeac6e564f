"""How blocks are cut into files and chunks; integers only."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp

KEEP = 'keep'

# A file is the unit of writing, a chunk that of checksums and of reading.
FILE_BYTES = 2**28
CHUNK_BYTES = 2**21

_CRC_BYTES = 4
_INDEX_ENTRY_BYTES = 16


class Kind(NamedTuple):
  """What one row of an array is."""

  shape: tuple[int, ...]
  dtype: str
  # A value that no row holds: zarr leaves out chunks that are full of it.
  fill: Any

  @property
  def bytes(self) -> int:
    """Bytes of a row."""
    return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Geometry:
  """The shape of a store."""

  blocks: int
  batches: int  # Of a block.
  shards: int  # Logical shards of a block.
  rows: int  # Rows that a batch takes from a logical shard.
  dtype: str
  widths: Mapping[str, int]  # {array: d_site}
  parts: int  # Files of a block, for each array.
  chunk_batches: int  # Batches of a chunk.

  @property
  def kinds(self) -> dict[str, Kind]:
    """The arrays by name."""
    activations = {
        name: Kind((width,), self.dtype, 'NaN')
        for name, width in self.widths.items()
    }
    return activations | {KEEP: Kind((), 'uint8', 255)}

  @property
  def block_rows(self) -> int:
    """Rows of a block."""
    return self.batches * self.shards * self.rows

  def array_shape(self, name: str) -> tuple[int, ...]:
    """The shape of a whole array."""
    steps = self.blocks * self.batches
    return steps, self.shards, self.rows, *self.kinds[name].shape

  def file_shape(self, name: str) -> tuple[int, ...]:
    """The part of an array that lies in one file."""
    shards = self.shards // self.parts
    return self.batches, shards, self.rows, *self.kinds[name].shape

  def chunk_shape(self, name: str) -> tuple[int, ...]:
    """The part of a file that has a checksum of its own."""
    return self.chunk_batches, *self.file_shape(name)[1:]

  def file_bytes(self, name: str) -> int:
    """The size of each file: data, a checksum a chunk, and the index."""
    chunks = self.batches // self.chunk_batches
    rows = math.prod(self.file_shape(name)[:3])
    index = chunks * _INDEX_ENTRY_BYTES + _CRC_BYTES
    return rows * self.kinds[name].bytes + chunks * _CRC_BYTES + index

  def file_of(self, name: str, block: int, part: int) -> str:
    """The path of a file below the store."""
    rest = ['0'] * (len(self.file_shape(name)) - 2)
    return '/'.join([name, 'c', str(block), str(part), *rest])

  def block_bytes(self) -> int:
    """Bytes of all files of a block."""
    return self.parts * sum(map(self.file_bytes, self.kinds))

  def to_json(self) -> dict[str, Any]:
    """Plain values, from which `from_json` makes it again."""
    return {**dataclasses.asdict(self), 'widths': dict(self.widths)}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> 'Geometry':
    """Reads what `to_json` gave."""
    return cls(**fields)


def make_geometry(
    widths: Mapping[str, int],
    dtype: str,
    *,
    blocks: int,
    block_positions: int,
    batch: int,
    shards: int,
    data_axis: int = 1,
    file_bytes: int = FILE_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
) -> Geometry:
  """Chooses files and chunks as large as asked for, or the next smaller.

  `data_axis` is that of the writing mesh: no file may hold rows of two of its
  parts, for another process may write those.
  """
  batches, rows = block_positions // batch, batch // shards
  row_bytes = max(widths.values()) * jnp.dtype(dtype).itemsize
  parts = [p for p in _divisors(shards) if p % data_axis == 0]
  part = next(
      (p for p in parts if block_positions // p * row_bytes <= file_bytes),
      shards,
  )
  batch_bytes = batch // part * row_bytes
  chunk_batches = max(
      n for n in _divisors(batches) if n == 1 or n * batch_bytes <= chunk_bytes
  )
  return Geometry(
      blocks=blocks,
      batches=batches,
      shards=shards,
      rows=rows,
      dtype=dtype,
      widths=dict(sorted(widths.items())),
      parts=part,
      chunk_batches=chunk_batches,
  )


def _divisors(n: int) -> list[int]:
  return [k for k in range(1, n + 1) if n % k == 0]
