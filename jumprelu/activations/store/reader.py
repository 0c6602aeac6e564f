"""Blocks from a store, with the same batches as the stream that was stored."""

from collections.abc import Mapping, Sequence
import concurrent.futures
import pathlib
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
import numpy as np

from jumprelu import errors, lm, sharding
from jumprelu.activations import blocks
from jumprelu.activations import scales as scales_lib
from jumprelu.activations import stream as stream_lib
from jumprelu.activations.store import arrays, record
from jumprelu.activations.store.geometry import KEEP
from jumprelu.array_typing import Array
from jumprelu.files import dotted

# {array: {first logical shard: [shards, slots, ...]}}.
_Rows = dict[str, dict[int, np.ndarray]]


@runtime_checkable
class StoreConfig(dotted.Dataclass, Protocol):
  """The fields of a training config that a store needs."""

  @property
  def store(self) -> str:
    """The folder of the store."""
    ...

  @property
  def blocks(self) -> int:
    """The number of blocks to read."""
    ...


class Stored:
  """A `blocks.Source` that reads a store.

  Each process reads the logical shards of its own devices. The next block is
  read into host memory while the current block is used. Rows are stored in the
  order of training, so the `order` of a block is the identity. A row that was
  dropped because of one stored tap remains dropped if that tap is not read.
  """

  def __init__(
      self,
      config: StoreConfig,
      taps: Sequence[lm.Tap],
      *,
      dtype: str,
      mesh: Mesh | None = None,
  ):
    """Opens and checks the store that a training config names.

    Args:
      config: The config of the run; its field `store` is the folder.
      taps: The taps to read.
      dtype: The dtype of the language model.
      mesh: The devices; None for one device.

    Raises:
      UserError: the store holds rows of another config, too few blocks, or not
        all taps.
      DataError: the store is incomplete, damaged, or of a newer format.
      MissingInputError: the folder does not exist.
    """
    self._path = pathlib.Path(config.store).expanduser()
    self.manifest, self.geometry, self._lines = record.read_manifest(self._path)
    _check_config(
        self._path,
        self.manifest,
        taps=taps,
        wanted=record.identity(config, dtype=dtype),
        blocks=config.blocks,
    )
    arrays.check_files(self._path, self.geometry)
    self._blocks = config.blocks
    self._mesh = mesh
    # {array: tap}.
    self._taps = {self.manifest['arrays'][str(tap)]: tap for tap in taps}
    self._arrays = {
        name: arrays.open_array(self._path, self.geometry, name)
        for name in (*self._taps, KEEP)
    }
    self._slots = self.geometry.batches * self.geometry.rows
    self._shards = self._local_shards()
    self._reader = concurrent.futures.ThreadPoolExecutor(1, 'store')
    self._ahead: dict[int, concurrent.futures.Future[_Rows]] = {}

  @property
  def data_digest(self) -> str:
    """The digest of the text from which the activations were computed."""
    return self.manifest['data_digest']

  def estimate_scales(self) -> scales_lib.Scales:
    """Returns the scales that were estimated for the store."""
    return scales_lib.from_json(self.manifest).only(self._taps.values())

  def make_block(self, index: int, scales: scales_lib.Scales) -> blocks.Block:
    """Returns block `index`, and starts to read the next block.

    Raises:
      DataError: the block is damaged.
    """
    ahead = self._ahead.pop(index, None) or self._read_ahead(index)
    rows = ahead.result()
    self._ahead.clear()
    if index + 1 < self._blocks:
      self._ahead[index + 1] = self._read_ahead(index + 1)
    keep = {start: x.astype(bool) for start, x in rows.pop(KEEP).items()}
    activations = {self._taps[name]: self._place(x) for name, x in rows.items()}
    slots = np.arange(self._slots, dtype=np.int32)
    return blocks.Block(
        activations=activations,
        inverse_scale={tap: self.put(1 / scales[tap]) for tap in activations},
        keep=self._place(keep),
        order=self._place(
            {a: np.tile(slots, (b - a, 1)) for a, b in self._shards}
        ),
        dropped=self.put(self._lines[index]['dropped']),
    )

  def put(self, value: int | float) -> Array:
    """Puts an int (as int32) or a float (as float32) on every device."""
    return stream_lib.put(value, self._mesh)

  def read(self, index: int) -> _Rows:
    """Reads and verifies the logical shards of block `index` in this process.

    Raises:
      DataError: the rows are damaged, or belong to another block.
    """
    geometry = self.geometry
    start = index * geometry.batches
    steps = slice(start, start + geometry.batches)
    # All reads are started before the first is awaited, so that they overlap.
    pending = {
        name: {
            a: arrays.read(array, steps=steps, shards=slice(a, b))
            for a, b in self._shards
        }
        for name, array in self._arrays.items()
    }
    block: _Rows = {}
    for name, futures in pending.items():
      block[name] = {}
      for a, future in futures.items():
        path = self._path / name
        rows = arrays.result_of(future, path, index)
        self._check_digests(rows, name, first=a, index=index)
        block[name][a] = rows.reshape(len(rows), self._slots, *rows.shape[3:])
    return block

  def _read_ahead(self, index: int) -> concurrent.futures.Future[_Rows]:
    return self._reader.submit(self.read, index)

  def _check_digests(
      self, rows: np.ndarray, name: str, *, first: int, index: int
  ) -> None:
    """Raises DataError if rows are damaged, or belong to another block.

    In stores before format 3, chunks have checksums, so that one shard of each
    file is enough: it differs if two files were swapped.
    """
    text = self._lines[index]['digests'][name]
    size = self.geometry.shards // self.geometry.parts
    numbers = range(first, first + len(rows))
    if self.geometry.crc32c:
      numbers = [n for n in numbers if n == first or n % size == 0]
    digests = arrays.digests(rows[n - first] for n in numbers)
    for number, digest in zip(numbers, digests, strict=True):
      if text[8 * number : 8 * number + 8] != f'{digest:08x}':
        file = self.geometry.file_of(name, index, number // size)
        raise errors.DataError(
            f'{self._path / file}: block {index} does not match its digests in'
            f' {record.BLOCKS}; {arrays.CURE}'
        )

  def _local_shards(self) -> list[tuple[int, int]]:
    """Returns the [start, stop) ranges of shards on this process's devices."""
    shards = self.geometry.shards
    if self._mesh is None:
      return [(0, shards)]
    layout = sharding.named(self._mesh, 'shards', None)
    shape = shards, self._slots
    indices: Any = layout.addressable_devices_indices_map(shape)
    return sorted({i[0].indices(shards)[:2] for i in indices.values()})

  def _place(self, parts: Mapping[int, np.ndarray]) -> Array:
    """Returns the array on the devices; `parts` maps first shards to rows."""
    if self._mesh is None:
      return jax.device_put(parts[0])
    rest = next(iter(parts.values())).shape[1:]
    shape = self.geometry.shards, *rest
    layout = sharding.named(self._mesh, 'shards', *(None,) * len(rest))
    return stream_lib.place(
        shape, lambda index: parts[index[0].indices(shape[0])[0]], layout
    )


def _check_config(
    path: pathlib.Path,
    manifest: Mapping[str, Any],
    *,
    taps: Sequence[lm.Tap],
    wanted: Mapping[str, Any],
    blocks: int,
) -> None:
  """Raises UserError unless a store holds the rows that a run would stream.

  Args:
    path: The folder of the store, for the message.
    manifest: The manifest of the store.
    taps: The taps that the run reads.
    wanted: The `record.identity` of the run's config.
    blocks: The number of blocks that the run needs.
  """
  problems = record.differences(record.stored_identity(manifest), wanted)
  names = manifest['arrays']
  missing = [str(tap) for tap in sorted(taps) if str(tap) not in names]
  if missing:
    problems.append(
        f'taps: {", ".join(missing)} are not stored, only {", ".join(names)}'
    )
  stored = manifest['geometry']['blocks']
  if blocks > stored:
    problems.append(
        f'tokens: {blocks} blocks are needed, {stored} are stored (`jumprelu'
        ' harvest` with these --tokens adds the others)'
    )
  if problems:
    raise errors.UserError(
        f'--store={path}: holds activations of another config:'
        f' {"; ".join(problems)}; use the same flags, or harvest a new store'
    )
