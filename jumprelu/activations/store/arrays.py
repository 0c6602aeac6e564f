"""The arrays of a store, which tensorstore reads and writes.

Specs are built from a path and a geometry. They are never read from a file,
because a file from an untrusted source could choose any driver of tensorstore.
"""

from collections.abc import Iterable
import concurrent.futures
import functools
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from jumprelu import errors, extras
from jumprelu.activations.store.geometry import Geometry

with extras.imports():
  import tensorstore

try:
  # Faster than zlib (docs/reliability.md has the costs of digests).
  from isal.isal_zlib import crc32 as _crc32
except ImportError:  # It is not built for every platform.
  from zlib import crc32 as _crc32

# Fewer bytes are not worth threads.
_SMALL = 2**22
CURE = 'remove the store and harvest it again'


def open_array(
    directory: pathlib.Path,
    geometry: Geometry,
    name: str,
    *,
    create: bool = False,
) -> tensorstore.TensorStore:
  """Opens an array of this geometry.

  Args:
    directory: The folder of the store.
    geometry: The geometry of the store.
    name: The name of the array.
    create: Whether to create the array if it does not exist, and to add blocks
      to one that has fewer.

  Raises:
    DataError: the array does not exist, or has another geometry. With `create`
      the error is tensorstore's.
  """
  kind = geometry.kinds[name]
  spec = {
      'driver': 'zarr3',
      'kvstore': {'driver': 'file', 'path': f'{directory / name}/'},
      'metadata': {
          'shape': geometry.array_shape(name),
          'data_type': kind.dtype,
          'chunk_grid': _regular(geometry.file_shape(name)),
          'chunk_key_encoding': {'name': 'default'},
          'fill_value': kind.fill,
          'codecs': [
              _sharded(geometry.chunk_shape(name), crc32c=geometry.crc32c)
          ],
      },
  }
  try:
    if create and (directory / name / 'zarr.json').exists():
      _add_blocks(spec)
    return tensorstore.open(spec, open=True, create=create).result()
  except (ValueError, OSError) as error:
    if create:
      raise
    raise errors.DataError(
        f'{directory / name}/zarr.json: does not match the manifest'
        f' ({_first_line(error)}); {CURE}'
    ) from None


def write(
    array: tensorstore.TensorStore, rows: np.ndarray, *, step: int, shard: int
) -> Any:
  """Starts to write a part of a block, and returns a future.

  Args:
    array: The array.
    rows: [shards, batches, rows, ...].
    step: The index of the first of the batches in the array.
    shard: The index of the first of the shards in the array.
  """
  shards, batches = rows.shape[:2]
  part = array[step : step + batches, shard : shard + shards]
  return part.write(rows.swapaxes(0, 1))


def read(
    array: tensorstore.TensorStore,
    *,
    steps: slice,
    shards: slice,
) -> Any:
  """Starts to read; returns a future of rows [shards, batches, rows, ...]."""
  part = array[steps, shards]
  axes = (1, 0, *range(2, part.rank))
  return part.transpose(axes).read(order='C')


def result_of(future: Any, path: pathlib.Path, block: int) -> np.ndarray:
  """Returns the rows of a pending read.

  Args:
    future: The result of `read`.
    path: The folder of the array, for the message.
    block: The number of the block, for the message.

  Raises:
    DataError: the rows are damaged.
  """
  try:
    return np.asarray(future.result())
  except (ValueError, OSError) as error:
    raise errors.DataError(
        f'{path}: block {block} is damaged: {_first_line(error)}; {CURE}'
    ) from None


def check_files(directory: pathlib.Path, geometry: Geometry) -> None:
  """Raises DataError unless every file exists and has the right size.

  Without this check, a missing file would silently be read as fill values.
  """
  for name in geometry.kinds:
    wanted = geometry.file_bytes(name)
    for block in range(geometry.blocks):
      for part in range(geometry.parts):
        path = directory / geometry.file_of(name, block, part)
        if not path.is_file():
          raise errors.DataError(f'{path}: missing (block {block}); {CURE}')
        size = path.stat().st_size
        if size != wanted:
          raise errors.DataError(
              f'{path}: has {size} bytes instead of {wanted} (block {block});'
              f' {CURE}'
          )


def digests(shards: Iterable[np.ndarray]) -> list[int]:
  """Returns the CRC-32 of the rows of each logical shard."""
  flat = [np.ascontiguousarray(x).view(np.uint8).data for x in shards]
  if sum(x.nbytes for x in flat) < _SMALL:
    return [_crc32(x) for x in flat]
  return list(_threads().map(_crc32, flat))


@functools.cache
def _threads() -> concurrent.futures.Executor:
  """Returns threads; a CRC-32 is computed without Python's lock."""
  return concurrent.futures.ThreadPoolExecutor(os.cpu_count())


def as_stored(x: np.ndarray) -> np.ndarray:
  """Returns booleans as bytes, and other arrays unchanged."""
  return x.astype(np.uint8) if x.dtype == jnp.bool_ else x


def _add_blocks(spec: dict[str, Any]) -> None:
  """Extends an existing array to the spec's number of batches."""
  batches = spec['metadata']['shape'][0]
  plain = {name: spec[name] for name in ('driver', 'kvstore')}
  array = tensorstore.open(plain, open=True).result()
  if array.shape[0] < batches:
    ends = [batches, *[None] * (array.rank - 1)]
    array.resize(exclusive_max=ends, expand_only=True).result()


def _regular(shape: tuple[int, ...]) -> dict[str, Any]:
  return {'name': 'regular', 'configuration': {'chunk_shape': shape}}


def _sharded(chunk: tuple[int, ...], *, crc32c: bool) -> dict[str, Any]:
  little = {'name': 'bytes', 'configuration': {'endian': 'little'}}
  checked = [little, {'name': 'crc32c'}]
  return {
      'name': 'sharding_indexed',
      'configuration': {
          'chunk_shape': chunk,
          'codecs': checked if crc32c else [little],
          'index_codecs': checked,
          'index_location': 'end',
      },
  }


def _first_line(error: Exception) -> str:
  # tensorstore adds the spec and the location in its source in brackets.
  line = str(error).split('\n')[0]
  for addition in (' [tensorstore_spec=', ' [source locations='):
    line = line.split(addition)[0]
  return line
