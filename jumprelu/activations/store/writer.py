"""Writes a stream's blocks in the order in which training takes their rows."""

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
import shutil
from typing import Any, NoReturn

import jax
import numpy as np

from jumprelu import errors, lm, processes
from jumprelu.activations import blocks
from jumprelu.activations.store import arrays, record
from jumprelu.activations.store.geometry import KEEP, Geometry
from jumprelu.array_typing import Array
from jumprelu.files import folder_kinds, formats, locks

_LOCK = 'store.lock'


class Writer:
  """One store being written, by all processes together."""

  def __init__(self, directory: pathlib.Path):
    self.directory = directory
    self.record: dict[str, Any] = {}
    self.geometry: Geometry
    self._arrays: dict[str, Any] = {}
    self._own: list[tuple[int, int]] = []

  @contextlib.contextmanager
  def claim(self) -> Iterator[None]:
    """Makes the directory and locks it; the lock dies with the process."""
    folder_kinds.refuse_inside_release('store', self.directory)
    if not processes.is_main():
      yield
      return
    where = f'--store={self.directory}'

    def refuse() -> NoReturn:
      raise errors.UserError(f'{where}: another process is writing there')

    with locks.hold(self.directory / _LOCK, where=where, on_busy=refuse):
      yield

  def found(self) -> tuple[dict[str, Any], bool]:
    """What is there already: its record, and whether it is complete."""
    if (self.directory / record.MANIFEST).exists():
      return record.read_manifest(self.directory)[0], True
    found = record.read_progress(self.directory)
    if not found and self.directory.is_dir():
      others = {path.name for path in self.directory.iterdir()} - {_LOCK}
      if others - {record.PROGRESS + '.partial'}:
        raise errors.UserError(
            f'--store={self.directory}: neither empty nor a store (it holds'
            f' {sorted(others)[0]}); choose another'
        )
    return found, False

  def start(self, facts: Mapping[str, Any], *, data_axis: int = 1) -> int:
    """Starts, or goes on with, what `facts` describe; the next block.

    Collective. `facts` hold `arrays` and `geometry`; `data_axis` is that of
    this mesh.
    """
    self.record = formats.stamp(formats.Kind.STORE) | dict(facts)
    self.geometry = Geometry.from_json(facts['geometry'])
    if self.geometry.parts % data_axis:
      raise errors.UserError(
          f'--store={self.directory}: its files hold'
          f' {self.geometry.parts} parts of a block, which the data axis'
          f' ({data_axis}) does not divide; go on with fewer devices'
      )
    done = 0
    if processes.is_main():
      done = record.cut_blocks(self.directory)
      self._check_space(self.geometry.blocks - done)
      record.write(self.directory / record.PROGRESS, self.record)
      self._open(create=True)
    (done,) = processes.from_main([done])
    if not processes.is_main():
      self._open(create=False)
    return done

  def write_block(self, index: int, block: blocks.Block) -> None:
    """Writes a block; collective. When it returns the block is on the disk."""
    geometry = self.geometry
    names = list(geometry.kinds)
    digests = np.zeros((len(names), geometry.shards), np.uint32)
    kept = np.zeros(1, np.uint32)
    orders = dict(_own_parts(block.order))
    self._own = [(a, a + len(order)) for a, order in orders.items()]
    tap_of = {name: tap for tap, name in self.record['arrays'].items()}
    for number, name in enumerate(names):
      if name == KEEP:
        source = block.keep
      else:
        source = block.activations[lm.parse_tap(tap_of[name])]
      pending = []
      for start, rows in _own_parts(source):
        order = orders[start]
        rows = np.stack([x[at] for x, at in zip(rows, order, strict=True)])
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
      line = {'block': index, 'rows': geometry.block_rows, 'dropped': dropped}
      line |= {
          'kept': int(kept[0]),
          'digests': dict(zip(names, hexes, strict=True)),
      }
      record.append_block(self.directory, line)

  def read_block(self, index: int) -> None:
    """Reads what this process wrote of a block, to see how long it takes."""
    step = index * self.geometry.batches
    steps = slice(step, step + self.geometry.batches)
    pending = [
        arrays.read(array, steps=steps, shards=slice(a, b))
        for array in self._arrays.values()
        for a, b in self._own
    ]
    for future in pending:
      future.result()

  def finish(self) -> None:
    """Writes the manifest."""
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
    """Compares what will be written with what the disk has left."""
    needed = missing * self.geometry.block_bytes()
    free = shutil.disk_usage(self.directory).free
    if needed > free:
      raise errors.UserError(
          f'--store={self.directory}: needs {needed / 2**30:.1f} GiB, the disk'
          f' has {free / 2**30:.1f}; give fewer --tokens or --sites'
      )


def _own_parts(x: Array) -> Iterator[tuple[int, np.ndarray]]:
  """The logical shards that this process must write: (first, rows)."""
  for shard in x.addressable_shards:
    if shard.replica_id == 0:
      start, _, _ = shard.index[0].indices(x.shape[0])
      yield start, np.asarray(shard.data)
