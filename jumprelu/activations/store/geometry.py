"""The sizes of a store's files and chunks."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp

KEEP = 'keep'

# A file is the unit of writing; a chunk is the unit of checksums and reading.
FILE_BYTES = 2**28
CHUNK_BYTES = 2**21

_CRC_BYTES = 4
_INDEX_ENTRY_BYTES = 16


class Kind(NamedTuple):
  """The shape and dtype of one row of an array."""

  shape: tuple[int, ...]
  dtype: str
  # A value that no row holds, because zarr omits chunks full of this value.
  fill: Any

  @property
  def bytes(self) -> int:
    """The bytes of a row."""
    return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Geometry:
  """The shape of a store."""

  blocks: int
  batches: int  # Batches per block.
  shards: int  # Logical shards per block.
  rows: int  # Rows per batch and logical shard.
  dtype: str
  widths: Mapping[str, int]  # {array: d_site}
  parts: int  # Files per block and array.
  chunk_batches: int  # Batches per chunk.

  @property
  def kinds(self) -> dict[str, Kind]:
    """The kind of each array, by name."""
    activations = {
        name: Kind((width,), self.dtype, 'NaN')
        for name, width in self.widths.items()
    }
    return activations | {KEEP: Kind((), 'uint8', 255)}

  @property
  def block_rows(self) -> int:
    """The rows of a block."""
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
    """Returns the shape of a chunk, which has one checksum."""
    return self.chunk_batches, *self.file_shape(name)[1:]

  def file_bytes(self, name: str) -> int:
    """Returns the size of each file: data, checksums of chunks, and index."""
    chunks = self.batches // self.chunk_batches
    rows = math.prod(self.file_shape(name)[:3])
    index = chunks * _INDEX_ENTRY_BYTES + _CRC_BYTES
    return rows * self.kinds[name].bytes + chunks * _CRC_BYTES + index

  def file_of(self, name: str, block: int, part: int) -> str:
    """Returns the path of a file, relative to the store."""
    rest = ['0'] * (len(self.file_shape(name)) - 2)
    return '/'.join([name, 'c', str(block), str(part), *rest])

  def block_bytes(self) -> int:
    """Returns the bytes of all files of a block."""
    return self.parts * sum(map(self.file_bytes, self.kinds))

  def to_json(self) -> dict[str, Any]:
    """Returns the fields as plain values; `from_json` is the inverse."""
    return {**dataclasses.asdict(self), 'widths': dict(self.widths)}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> 'Geometry':
    """Returns the geometry with fields of `to_json`."""
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
  """Returns a geometry with the largest files and chunks within the limits.

  Args:
    widths: {array: d_site}.
    dtype: The dtype of activations.
    blocks: The number of blocks.
    block_positions: Rows per block.
    batch: Rows per batch.
    shards: Logical shards per block.
    data_axis: The size of the data axis of the mesh that writes. No file spans
      two positions of the axis, because each process writes its own files.
    file_bytes: The limit on a file, if it holds more than one logical shard.
    chunk_bytes: The limit on a chunk, if it holds more than one batch.
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
