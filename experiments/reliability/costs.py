r"""The costs of digests: of a checkpoint's save, and of reading a store.

  python -m experiments.reliability.costs

A row has the median seconds with and without digests over pairs that are timed
in turn, and the median of their ratios. Arrays are read from the page cache,
and from the disk. The last line has the speed of the digests of arrays. The checkpoint holds a group of SAEs at
16,384 latents and 640 inputs. The array is in the format of a store, with one
of 16 logical shards compared with its digest in each file, beside the checksums
of all chunks. The costs of the guards of a step are those that
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

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import tensorstore

from jumprelu.activations.store import arrays
from jumprelu.files import digests
from jumprelu.ops import array_digests
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib
from jumprelu.training import checkpoint, checkpoint_config

_WIDTH, _D = 16_384, 640
# Positions of a batch, batches of a file, files, and logical shards of a file.
_BATCH, _BATCHES, _FILES, _SHARDS = 4096, 16, 4, 16


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
    _row('save', *_saves(place / 'saves', flag_values.members), pairs)
    protected, plain = _reads(place / 'arrays')
    _row('read from memory', protected, plain, pairs)
    drop = functools.partial(_drop, place / 'arrays')
    _row('read from the disk', protected, plain, pairs, before=drop)
  state = _state(flag_values.members)
  print(f'digests: {_speed(state) / 1e9:.1f} GB/s')
  return 0


def _row(
    name: str,
    protected: Callable[[], None],
    plain: Callable[[], None],
    pairs: int,
    before: Callable[[], None] = lambda: None,
) -> None:
  """Times both, the first one first in every other pair, and prints a row.

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


def _state(members: int) -> dict[str, jax.Array]:
  """Returns the matrices of SAEs and their second moments."""
  rng = np.random.default_rng(0)
  shape = (members, _WIDTH, _D)
  state = {
      f'{part}.{name}': jnp.asarray(rng.standard_normal(shape, np.float32))
      for part in ('params', 'nu')
      for name in ('W_enc', 'W_dec')
  }
  return jax.block_until_ready(state)


def _speed(state: dict[str, jax.Array]) -> float:
  """Returns the bytes per second whose digests are computed, at best."""
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    digests.leaf_records(state, parts=array_digests.parts)
    seconds.append(time.perf_counter() - start)
  return sum(x.nbytes for x in state.values()) / min(seconds)


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
  step = 0

  def save() -> None:
    nonlocal step
    step += 1
    saver.save(step, state, meta={})
    saver.wait()

  def save_without() -> None:
    records = digests.leaf_records
    digests.leaf_records = lambda leaves, parts: ({}, [])
    try:
      save()
    finally:
      digests.leaf_records = records

  return save, save_without


def _reads(
    folder: pathlib.Path,
) -> tuple[Callable[[], None], Callable[[], None]]:
  """Returns functions that read an array, with and without checksums."""
  rows = np.random.default_rng(0).standard_normal(
      (_FILES * _BATCHES * _BATCH, _D), np.float32
  )
  protected, plain = (
      _write(folder / name, rows, name) for name in ('crc32c', 'plain')
  )

  def read(array: tensorstore.TensorStore, *, digest: bool) -> None:
    size = _BATCHES * _BATCH
    for start in range(0, len(rows), size):
      block = np.asarray(array[start : start + size].read().result())
      if digest:
        arrays.digests(block[None, : size // _SHARDS])

  return (
      functools.partial(read, protected, digest=True),
      functools.partial(read, plain, digest=False),
  )


def _write(
    folder: pathlib.Path, rows: np.ndarray, name: str
) -> tensorstore.TensorStore:
  """Writes rows in the layout of a store; returns the array to read."""
  checks = [{'name': 'crc32c'}] if name == 'crc32c' else []
  spec = {
      'driver': 'zarr3',
      'kvstore': {'driver': 'file', 'path': f'{folder}/'},
      'metadata': {
          'shape': rows.shape,
          'data_type': 'float32',
          'chunk_grid': {
              'name': 'regular',
              'configuration': {'chunk_shape': [_BATCHES * _BATCH, _D]},
          },
          'codecs': [
              {
                  'name': 'sharding_indexed',
                  'configuration': {
                      'chunk_shape': [_BATCH, _D],
                      'codecs': [
                          {
                              'name': 'bytes',
                              'configuration': {'endian': 'little'},
                          },
                          *checks,
                      ],
                  },
              }
          ],
      },
  }
  array = tensorstore.open(spec, create=True, open=True).result()
  array.write(rows).result()
  return array


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.reliability.costs',
          sys.argv[1:],
      )
  )
