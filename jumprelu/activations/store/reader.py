"""Blocks from a store, as the stream that it was made of would give them."""

from collections.abc import Mapping, Sequence
import concurrent.futures
import pathlib
from typing import Any

import jax
import numpy as np

from jumprelu import errors, lm, sharding
from jumprelu.activations import blocks
from jumprelu.activations import stream as stream_lib
from jumprelu.activations.store import arrays, record
from jumprelu.activations.store.geometry import KEEP
from jumprelu.array_typing import Array

# {array: {first logical shard: [shards, slots, ...]}}.
_Rows = dict[str, dict[int, np.ndarray]]


class Stored:
  """A `blocks.Source` that reads; each process what its devices own.

  The block after the one that was asked for is read meanwhile, into memory of
  the host. Rows come in the order of training: the order of a block is the
  identity. A row that was dropped at one of the stored taps is dropped, also
  where only some of them are read.
  """

  def __init__(
      self,
      config: Any,
      taps: Sequence[lm.Tap],
      *,
      dtype: str,
      mesh: Any = None,
  ):
    """Opens the store of a training config and checks it.

    Args:
      config: The run's config; `store` says where.
      taps: What is read.
      dtype: The language model's, resolved.
      mesh: The device mesh.

    Raises:
      UserError: the store is of another config.
      DataError, MissingInputError: it is damaged, or not there.
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
    self._own = self._own_shards()
    self._reader = concurrent.futures.ThreadPoolExecutor(1, 'store')
    self._ahead: dict[int, concurrent.futures.Future[_Rows]] = {}

  @property
  def data_digest(self) -> str:
    """The digest of the text behind the activations."""
    return self.manifest['data_digest']

  def estimate_scales(self) -> dict[lm.Tap, float]:
    """Returns the scales that were estimated when the store was made."""
    scales = self.manifest['scales']
    return {tap: scales[str(tap)] for tap in self._taps.values()}

  def make_block(
      self, index: int, scales: Mapping[lm.Tap, float]
  ) -> blocks.Block:
    """Returns block `index`, and starts to read the next one."""
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
            {a: np.tile(slots, (b - a, 1)) for a, b in self._own}
        ),
        dropped=self.put(self._lines[index]['dropped']),
    )

  def put(self, value: int | float) -> Array:
    """Puts a number on every device, explicitly; int32 or float32."""
    return stream_lib.put(value, self._mesh)

  def read(self, index: int) -> _Rows:
    """Reads what this process owns of block `index`, and checks it."""
    geometry = self.geometry
    start = index * geometry.batches
    steps = slice(start, start + geometry.batches)
    # All at once: tensorstore overlaps them.
    pending = {
        name: {
            a: arrays.read(array, steps=steps, shards=slice(a, b))
            for a, b in self._own
        }
        for name, array in self._arrays.items()
    }
    found: _Rows = {}
    for name, futures in pending.items():
      found[name] = {}
      for a, future in futures.items():
        path = self._path / name
        rows = arrays.result_of(future, path, index)
        self._check_digests(rows, name, first=a, index=index)
        found[name][a] = rows.reshape(len(rows), self._slots, *rows.shape[3:])
    return found

  def _read_ahead(self, index: int) -> 'concurrent.futures.Future[_Rows]':
    return self._reader.submit(self.read, index)

  def _check_digests(
      self, rows: np.ndarray, name: str, *, first: int, index: int
  ) -> None:
    """A file of another block has valid checksums, but not these."""
    text = self._lines[index]['digests'][name]
    for number, digest in enumerate(arrays.digests(rows), first):
      if text[8 * number : 8 * number + 8] != f'{digest:08x}':
        part = number // (self.geometry.shards // self.geometry.parts)
        path = self._path / self.geometry.file_of(name, index, part)
        raise errors.DataError(
            f'{path}: block {index} holds other rows than were written;'
            f' {arrays.CURE}'
        )

  def _own_shards(self) -> list[tuple[int, int]]:
    """The runs of logical shards on this process's devices."""
    shards = self.geometry.shards
    if self._mesh is None:
      return [(0, shards)]
    layout = sharding.named(self._mesh, 'shards', None)
    shape = shards, self._slots
    places: Any = layout.addressable_devices_indices_map(shape)
    return sorted({at[0].indices(shards)[:2] for at in places.values()})

  def _place(self, parts: Mapping[int, np.ndarray]) -> Array:
    """Puts rows on the devices; nothing goes to another process."""
    if self._mesh is None:
      return jax.device_put(parts[0])
    rest = next(iter(parts.values())).shape[1:]
    shape = self.geometry.shards, *rest
    layout = sharding.named(self._mesh, 'shards', *(None,) * len(rest))
    return stream_lib.place(
        shape, lambda at: parts[at[0].indices(shape[0])[0]], layout
    )


def _check_config(
    path: pathlib.Path,
    manifest: Mapping[str, Any],
    *,
    taps: Sequence[lm.Tap],
    wanted: Mapping[str, Any],
    blocks: int,
) -> None:
  """Refuses a store that holds other rows than the run would stream."""
  problems = record.differences(manifest['identity'], wanted)
  names = manifest['arrays']
  missing = [str(tap) for tap in sorted(taps) if str(tap) not in names]
  if missing:
    problems.append(
        f'taps: {", ".join(missing)} not stored, only {", ".join(names)}'
    )
  stored = manifest['geometry']['blocks']
  if blocks > stored:
    problems.append(f'tokens: {blocks} blocks are needed, {stored} are stored')
  if problems:
    raise errors.UserError(
        f'--store={path}: holds activations of another config:'
        f' {"; ".join(problems)}; give the same flags, or harvest another'
    )
