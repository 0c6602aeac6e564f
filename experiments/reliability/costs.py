r"""The costs of digests: of a checkpoint's save, and of reading a store.

  python -m experiments.reliability.costs

A row has the median seconds with and without digests over pairs that are timed
in turn, and the median of their ratios. The checkpoint holds a group of SAEs of
16,384 latents and 640 inputs; the last line has the median time of its digests
within the saves, which vary more, and its share of a save. The store has the sizes of the real run,
blocks of 65,536 positions in batches of 256, and is read from the page cache
and from the disk. The costs of the guards of a step are those that
`experiments.benchmarking.against` measures between two checkouts.
"""

from collections.abc import Callable
import functools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import tensorstore

from jumprelu.activations import store
from jumprelu.activations.store import arrays
from jumprelu.files import digests
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib
from jumprelu.training import checkpoint, checkpoint_config

_WIDTH, _D = 16_384, 640
# Blocks of the store, positions of a block and of a batch, and logical shards.
_BLOCKS, _POSITIONS, _BATCH, _SHARDS = 4, 65_536, 256, 16

# The seconds that each save spent on digests.
_DIGESTS: list[float] = []


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags_lib.define_integer(
      flag_values, 'pairs', 7, 'Number of pairs.', lower_bound=1
  )
  flags_lib.define_integer(
      flag_values, 'members', 3, 'SAEs of the checkpoint.', lower_bound=1
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints the table."""
  print('| what | with digests, s | without, s | ratio |\n|---|--:|--:|--:|')
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    pairs = flag_values.pairs
    save = _row('save', *_saves(place / 'saves', flag_values.members), pairs)
    protected, plain = _reads(place / 'arrays')
    _row('read from memory', protected, plain, pairs)
    drop = functools.partial(_drop, place / 'arrays')
    _row('read from the disk', protected, plain, pairs, before=drop)
  seconds = statistics.median(_DIGESTS)
  print(f'digests: {seconds:.3f} s, {seconds / save:.1%} of a save')
  return 0


def _row(
    name: str,
    protected: Callable[[], None],
    plain: Callable[[], None],
    pairs: int,
    before: Callable[[], None] = lambda: None,
) -> float:
  """Times both, the first one first in every other pair, and prints a row.

  Returns the median seconds with digests.

  Args:
    name: The name of the row.
    protected: The work with digests.
    plain: The work without digests.
    pairs: The number of pairs.
    before: Called before each work; not timed.
  """
  protected()
  plain()
  times: tuple[list[float], list[float]] = ([], [])
  for number in range(pairs):
    for side in (0, 1) if number % 2 else (1, 0):
      before()
      start = time.perf_counter()
      (protected, plain)[side]()
      times[side].append(time.perf_counter() - start)
  ratios = [a / b for a, b in zip(*times, strict=True)]
  ours, theirs = map(statistics.median, times)
  ratio = statistics.median(ratios)
  print(f'| {name} | {ours:.3f} | {theirs:.3f} | {ratio:.3f} |', flush=True)
  return ours


def _state(members: int) -> dict[str, jax.Array]:
  """Returns the matrices of SAEs and their second moments."""
  rng = np.random.default_rng(0)
  shapes = {'W_enc': (members, _D, _WIDTH), 'W_dec': (members, _WIDTH, _D)}
  state = {
      f'{part}.{name}': jnp.asarray(rng.standard_normal(shape, np.float32))
      for part in ('params', 'nu')
      for name, shape in shapes.items()
  }
  return jax.block_until_ready(state)


def _drop(folder: pathlib.Path) -> None:
  """Removes the files of a folder from the page cache."""
  for path in folder.rglob('*'):
    if path.is_file():
      descriptor = os.open(path, os.O_RDONLY)
      os.fsync(descriptor)
      os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
      os.close(descriptor)


def _saves(
    folder: pathlib.Path, members: int
) -> tuple[Callable[[], None], Callable[[], None]]:
  """Returns functions that save a checkpoint, with and without digests."""
  state = _state(members)
  saver = checkpoint.Checkpointer(folder, checkpoint_config.Config(keep=1))
  step, records = 0, digests.leaf_records

  def timed(leaves: Any, *, parts_of: Any) -> Any:
    start = time.perf_counter()
    result = records(leaves, parts_of=parts_of)
    _DIGESTS.append(time.perf_counter() - start)
    return result

  digests.leaf_records = timed

  def save() -> None:
    nonlocal step
    step += 1
    saver.save(step, state, meta={})
    saver.wait()

  def save_without() -> None:
    digests.leaf_records = lambda leaves, parts_of: ({}, [])
    try:
      save()
    finally:
      digests.leaf_records = timed

  return save, save_without


def _reads(
    folder: pathlib.Path,
) -> tuple[Callable[[], None], Callable[[], None]]:
  """Returns functions that read a store's arrays, with and without digests."""
  geometry = store.make_geometry(
      {'resid_post': _D},
      'float32',
      blocks=_BLOCKS,
      block_positions=_POSITIONS,
      batch=_BATCH,
      shards=_SHARDS,
  )
  array = _write(folder, geometry)

  def read(*, digest: bool) -> None:
    for block in range(geometry.blocks):
      start = block * geometry.batches
      steps = slice(start, start + geometry.batches)
      everything = slice(0, geometry.shards)
      future = arrays.read(array, steps=steps, shards=everything)
      rows = arrays.result_of(future, folder, block)
      if digest:  # As `store.Stored` does.
        arrays.digests(rows)
      jax.block_until_ready(jax.device_put(rows))

  return (
      functools.partial(read, digest=True),
      functools.partial(read, digest=False),
  )


def _write(
    folder: pathlib.Path, geometry: store.Geometry
) -> tensorstore.TensorStore:
  """Writes random rows; returns the array."""
  folder.mkdir(parents=True)
  array = arrays.open_array(folder, geometry, 'resid_post', create=True)
  shape = (geometry.shards, geometry.batches, geometry.rows, _D)
  rows = np.random.default_rng(0).standard_normal(shape, np.float32)
  for block in range(geometry.blocks):
    step = block * geometry.batches
    arrays.write(array, rows, step=step, shard=0).result()
  return array


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.reliability.costs',
          sys.argv[1:],
      )
  )
