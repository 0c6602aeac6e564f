"""The writer of a store, which writes rows in the order of training."""

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
from typing import Any, NoReturn

import jax
import numpy as np

from jumprelu import errors, lm, processes
from jumprelu.activations import blocks
from jumprelu.activations.store import arrays, record
from jumprelu.activations.store.geometry import KEEP, Geometry
from jumprelu.array_typing import Array
from jumprelu.files import disk, folder_kinds, formats, locks

_LOCK = 'store.lock'


class Writer:
  """The writer of a store. All processes must call each method together."""

  def __init__(self, directory: pathlib.Path):
    self.directory = directory
    self.record: dict[str, Any] = {}
    self.geometry: Geometry
    self._arrays: dict[str, Any] = {}
    self._shards: list[tuple[int, int]] = []

  @contextlib.contextmanager
  def claim(self) -> Iterator[None]:
    """Creates the directory and locks it while the context is open.

    Raises:
      UserError: the directory is not writable, in use, or inside a release.
    """
    folder_kinds.refuse_inside_release('store', self.directory)
    if not processes.is_main():
      yield
      return
    where = f'--store={self.directory}'

    def refuse() -> NoReturn:
      raise errors.UserError(f'{where}: another process is writing there')

    with locks.hold(self.directory / _LOCK, where=where, on_busy=refuse):
      yield

  def read_existing(self) -> tuple[dict[str, Any], bool]:
    """Returns the record of an existing store, and whether it is complete.

    The record is {} if the directory holds no store.

    Raises:
      UserError: the directory holds other files.
      DataError: the store is damaged, or of a newer format.
    """
    if (self.directory / record.MANIFEST).exists():
      return record.read_manifest(self.directory)[0], True
    progress = record.read_progress(self.directory)
    if not progress and self.directory.is_dir():
      others = {path.name for path in self.directory.iterdir()} - {_LOCK}
      if others - {record.PROGRESS + '.partial'}:
        raise errors.UserError(
            f'--store={self.directory}: neither empty nor a store (it holds'
            f' {sorted(others)[0]}); choose another folder'
        )
    return progress, False

  def start(self, facts: Mapping[str, Any], *, data_axis: int = 1) -> int:
    """Starts, resumes or extends a store; returns the number of the next block.

    A complete store becomes an incomplete one, to which blocks can be added.

    Args:
      facts: The record of the store, with the fields `arrays` and `geometry`.
      data_axis: The size of the data axis of the mesh.

    Raises:
      UserError: the disk has too little free space, or the data axis does not
        divide the files of a block.
    """
    self.record = formats.stamp(formats.Kind.STORE) | dict(facts)
    self.geometry = Geometry.from_json(facts['geometry'])
    if self.geometry.parts % data_axis:
      raise errors.UserError(
          f'--store={self.directory}: a block has {self.geometry.parts} files'
          f' per array, which the data axis ({data_axis}) does not divide;'
          ' resume with fewer devices'
      )
    done = 0
    if processes.is_main():
      done = record.drop_unfinished_line(self.directory)
      self._check_space(self.geometry.blocks - done)
      record.reopen(self.directory, self.record)
      self._open(create=True)
    (done,) = processes.from_main([done])
    if not processes.is_main():
      self._open(create=False)
    return done

  def write_block(self, index: int, block: blocks.Block) -> None:
    """Writes a block and then its record, and waits until both are on disk."""
    geometry = self.geometry
    names = list(geometry.kinds)
    digests = np.zeros((len(names), geometry.shards), np.uint32)
    kept = np.zeros(1, np.uint32)
    orders = dict(_local_shards(block.order))
    self._shards = [(a, a + len(order)) for a, order in orders.items()]
    tap_of = {name: tap for tap, name in self.record['arrays'].items()}
    for number, name in enumerate(names):
      if name == KEEP:
        source = block.keep
      else:
        source = block.activations[lm.parse_tap(tap_of[name])]
      pending = []
      for start, rows in _local_shards(source):
        order = orders[start]
        rows = np.stack([x[i] for x, i in zip(rows, order, strict=True)])
        rows = arrays.as_stored(rows).reshape(
            len(rows), geometry.batches, geometry.rows, *rows.shape[2:]
        )
        step = index * geometry.batches
        array = self._arrays[name]
        pending.append(arrays.write(array, rows, step=step, shard=start))
        digests[number, start : start + len(rows)] = arrays.digests(rows)
        if name == KEEP:
          kept[0] += int(rows.sum())
      for future in pending:
        future.result()
    dropped = int(jax.device_get(block.dropped))
    digests, kept = processes.add(digests), processes.add(kept)
    if processes.is_main():
      hexes = [''.join(f'{x:08x}' for x in row.tolist()) for row in digests]
      line = {
          'block': index,
          'rows': geometry.block_rows,
          'dropped': dropped,
          'kept': int(kept[0]),
          'digests': dict(zip(names, hexes, strict=True)),
      }
      record.append_block(self.directory, line)

  def read_block(self, index: int) -> None:
    """Reads this process's part of a written block, to measure the time."""
    step = index * self.geometry.batches
    steps = slice(step, step + self.geometry.batches)
    pending = [
        arrays.read(array, steps=steps, shards=slice(a, b))
        for array in self._arrays.values()
        for a, b in self._shards
    ]
    for future in pending:
      future.result()

  def finish(self) -> None:
    """Writes the manifest, which completes the store."""
    if processes.is_main():
      record.finish(self.directory, self.record)
    processes.barrier('the store is complete')

  def _open(self, *, create: bool) -> None:
    self._arrays = {
        name: arrays.open_array(
            self.directory, self.geometry, name, create=create
        )
        for name in self.geometry.kinds
    }

  def _check_space(self, missing: int) -> None:
    """Raises FullDiskError if missing blocks have too little space."""
    disk.require(
        self.directory,
        missing * self.geometry.block_bytes(),
        what=f'a store of {missing} more blocks',
        cure='or choose fewer --tokens or --sites',
    )


def _local_shards(x: Array) -> Iterator[tuple[int, np.ndarray]]:
  """Yields the rows that each device of this process holds, with their index.

  The index is that of the first logical shard among the rows. Replicated rows
  are yielded once.
  """
  for shard in x.addressable_shards:
    if shard.replica_id == 0:
      start, _, _ = shard.index[0].indices(x.shape[0])
      yield start, np.asarray(shard.data)
