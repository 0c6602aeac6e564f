"""The sizes of a store's files and chunks."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp

KEEP = 'keep'

# The largest sizes of a file, which is written as a whole, and of a chunk, the
# part of a file that is read as a whole.
FILE_BYTES = 2**28
CHUNK_BYTES = 2**21

_CRC_BYTES = 4
_INDEX_ENTRY_BYTES = 16


class Kind(NamedTuple):
  """The shape and dtype of one row of an array."""

  shape: tuple[int, ...]
  dtype: str
  # The fill value. zarr does not write a chunk that holds only this value, so
  # it is a value that no row holds.
  fill: Any

  @property
  def bytes(self) -> int:
    """The number of bytes of a row."""
    return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Geometry:
  """The sizes of a store's arrays, files and chunks."""

  blocks: int
  batches: int  # Batches per block.
  shards: int  # Logical shards per block.
  rows: int  # Rows per batch and logical shard.
  dtype: str
  widths: Mapping[str, int]  # {array: d_site}
  parts: int  # Files per block and array.
  chunk_batches: int  # Batches per chunk.
  # Whether chunks have checksums, as in stores before format 3. In others, the
  # digests of `record` are those of all rows.
  crc32c: bool = True

  @property
  def kinds(self) -> dict[str, Kind]:
    """The shape and dtype of the rows of each array, by name."""
    activations = {
        name: Kind((width,), self.dtype, 'NaN')
        for name, width in self.widths.items()
    }
    return activations | {KEEP: Kind((), 'uint8', 255)}

  @property
  def block_rows(self) -> int:
    """The number of rows of a block."""
    return self.batches * self.shards * self.rows

  def array_shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of a whole array."""
    steps = self.blocks * self.batches
    return steps, self.shards, self.rows, *self.kinds[name].shape

  def file_shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of an array's part in one file."""
    shards = self.shards // self.parts
    return self.batches, shards, self.rows, *self.kinds[name].shape

  def chunk_shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of a chunk, the smallest part that is read."""
    return self.chunk_batches, *self.file_shape(name)[1:]

  def file_bytes(self, name: str) -> int:
    """Returns the bytes of a file: rows, checksums, and index."""
    chunks = self.batches // self.chunk_batches
    rows = math.prod(self.file_shape(name)[:3])
    index = chunks * _INDEX_ENTRY_BYTES + _CRC_BYTES
    checksums = chunks * _CRC_BYTES if self.crc32c else 0
    return rows * self.kinds[name].bytes + checksums + index

  def file_of(self, name: str, block: int, part: int) -> str:
    """Returns the path of a file, relative to the store."""
    rest = ['0'] * (len(self.file_shape(name)) - 2)
    return '/'.join([name, 'c', str(block), str(part), *rest])

  def block_bytes(self) -> int:
    """Returns the bytes of all files of a block together."""
    return self.parts * sum(map(self.file_bytes, self.kinds))

  def to_json(self) -> dict[str, Any]:
    """Returns the fields as plain values; `from_json` is the inverse."""
    return {**dataclasses.asdict(self), 'widths': dict(self.widths)}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> 'Geometry':
    """Returns the geometry whose `to_json` is `fields`."""
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
  """Returns the geometry with the largest files and chunks within the limits.

  Args:
    widths: {array: d_site}.
    dtype: The dtype of the activations.
    blocks: The number of blocks.
    block_positions: The number of rows per block.
    batch: The number of rows per batch.
    shards: The number of logical shards per block.
    data_axis: The size of the data axis of the mesh that writes. A file holds
      logical shards of a single position on this axis, because each process
      writes its own files.
    file_bytes: The largest size of a file. A file with a single logical shard
      may be larger.
    chunk_bytes: The largest size of a chunk. A chunk with a single batch may be
      larger.
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
      crc32c=False,
  )


def _divisors(n: int) -> list[int]:
  return [k for k in range(1, n + 1) if n % k == 0]
