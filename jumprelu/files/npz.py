"""NumPy files from untrusted sources: headers are checked before data is read.

Anyone can forge a header. Loading an object array would run pickled code, and a
shape of terabytes would be allocated before NumPy notices that the data is
missing. An array is therefore read only if its dtype is expected and its shape
agrees with the size of the file. Arrays of an .npz file must also have exactly
the expected names and shapes. A small compressed file can hold gigabytes of
zeros, so the sizes of all its entries are compared with that of the file.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
import math
import os
import pathlib
import tokenize
from typing import Any
import zipfile

import numpy as np

from jumprelu import errors
from jumprelu.files import lfs, zips

Shape = tuple[int, ...]
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# The bytes of the length of a header, by version.
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
# NumPy parses no longer header, but would read it before its own check.
_MAX_HEADER = 10_000
# Entries may be larger than the file by this factor and this many bytes. A
# deflated array of zeros is smaller by a factor of 1000.
_MAX_RATIO, _FREE_BYTES = 64, 2**26
# The methods with which NumPy writes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_ENCRYPTED = 1


def write_npz(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]):
  """Writes arrays uncompressed. Equal arrays result in equal files."""
  with open(path, 'wb') as f:
    # `ascontiguousarray` would add an axis to a scalar.
    named: Any = {k: np.asarray(a, order='C') for k, a in arrays.items()}
    np.savez(f, **named)


def read_npz(
    path: str | os.PathLike,
    shapes: Mapping[str, Shape],
    *,
    dtype: type | Mapping[str, str] = np.float32,
) -> dict[str, np.ndarray]:
  """Returns the arrays of a file that holds exactly the named ones.

  Args:
    path: The file.
    shapes: The shape of each array, by name.
    dtype: The dtype of all arrays, or a mapping from names to dtypes.

  Raises:
    MissingInputError: The file does not exist.
    DataError: The file is damaged, or its arrays are not those expected.
  """
  with _open(path) as archive:
    _check_names(path, [i.filename for i in archive.infolist()], shapes)
    return {
        name: _read_member(
            path,
            archive,
            name,
            shape,
            np.dtype(dtype[name] if isinstance(dtype, Mapping) else dtype),
        )
        for name, shape in shapes.items()
    }


def header(path: str | os.PathLike) -> dict[str, tuple[Shape, str]]:
  """Returns the shape and dtype in each array's header; reads no data.

  Raises:
    MissingInputError: The file does not exist.
    DataError: The file is damaged, or has entries that are not arrays.
  """
  headers = {}
  with _open(path) as archive:
    for info in archive.infolist():
      name, dot, suffix = info.filename.rpartition('.')
      if (dot + suffix) != '.npy' or name in headers:
        raise errors.DataError(f'{path}: unexpected entry {info.filename!r}')
      with archive.open(info) as f:
        shape, dtype = _read_header(f'{path}: {name}', f)
      headers[name] = shape, str(dtype)
  return headers


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
  try:
    with zipfile.ZipFile(path) as archive:
      _check_entries(path, archive.infolist())
      yield archive
  except FileNotFoundError as e:
    raise errors.MissingInputError(f'{path}: no such file') from e
  except errors.UserError:
    raise
  except zips.DAMAGE as e:
    if errors.is_wrong_path(e):
      raise
    lfs.refuse_pointer(path)
    raise errors.DataError(f'{path}: damaged or truncated npz ({e})') from e


def _check_entries(
    path: str | os.PathLike, entries: Sequence[zipfile.ZipInfo]
) -> None:
  """Raises DataError if entries are encrypted, or larger than plausible."""
  for info in entries:
    if info.flag_bits & _IS_ENCRYPTED or info.compress_type not in _METHODS:
      raise errors.DataError(
          f'{path}: {info.filename} is encrypted or compressed with another'
          ' method than deflate; write the file with numpy.savez'
      )
  size, claimed = os.path.getsize(path), sum(info.file_size for info in entries)
  if claimed > _MAX_RATIO * size + _FREE_BYTES:
    raise errors.DataError(
        f'{path}: claims {claimed:,} bytes of arrays in a file of {size:,}'
        ' bytes; write the file with numpy.savez if that is true'
    )


def read_npy(path: str | os.PathLike, *, ndim: int, kinds: str) -> np.ndarray:
  """Returns the array of an .npy file.

  Args:
    path: The file.
    ndim: The number of axes that the array must have.
    kinds: The kinds of dtype that the array may have, as letters of NumPy's
      `dtype.kind`: i, u or f.

  Raises:
    MissingInputError: The file does not exist.
    DataError: The file is damaged, or holds another kind of array.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file')
  with open(path, 'rb') as f:
    shape, dtype = _read_header(path, f)
    if dtype.kind not in kinds or len(shape) != ndim:
      raise errors.DataError(
          f'{path}: holds {dtype} of shape {list(shape)}; expected'
          f' {" or ".join(_KIND_NAMES[k] for k in kinds)} numbers, and a shape'
          f' of length {ndim}'
      )
    claimed = math.prod(shape) * dtype.itemsize
    if path.stat().st_size - f.tell() != claimed:
      raise errors.DataError(f'{path}: its size does not fit its shape')
  return np.load(path, allow_pickle=False)


_KIND_NAMES = {'i': 'integer', 'u': 'unsigned integer', 'f': 'float'}


def _check_names(path, filenames: list[str], shapes: Mapping[str, Shape]):
  expected = {f'{name}.npy' for name in shapes}
  for name in filenames:
    if name not in expected:
      raise errors.DataError(f'{path}: unexpected array {name!r}')
  if len(set(filenames)) != len(filenames):
    raise errors.DataError(f'{path}: holds an array twice')
  for name in sorted(expected - set(filenames)):
    raise errors.DataError(f'{path}: array {name!r} is missing')


def _read_member(path, archive, name, shape, dtype) -> np.ndarray:
  info = archive.getinfo(f'{name}.npy')
  with archive.open(info) as f:
    stored_shape, stored_dtype = _read_header(f'{path}: {name}', f)
    # This also refuses object arrays and arrays of the other byte order.
    if stored_dtype != dtype:
      raise errors.DataError(
          f'{path}: {name} is {stored_dtype}, expected {dtype}'
      )
    if stored_shape != tuple(shape):
      raise errors.DataError(
          f'{path}: {name} has shape {list(stored_shape)}, expected'
          f' {list(shape)}'
      )
    size = math.prod(shape) * dtype.itemsize
    if info.file_size - f.tell() != size:
      raise errors.DataError(
          f'{path}: the size of {name} does not fit its shape'
      )
  with archive.open(info) as f:
    array = np.lib.format.read_array(f, allow_pickle=False)
    f.read()  # At the entry's end, zipfile compares its checksum.
  return array


def _read_header(where, f) -> tuple[Shape, np.dtype]:
  try:
    version = np.lib.format.read_magic(f)
    prefix = f.read(_LENGTH_BYTES[version])
    length = int.from_bytes(prefix, 'little')
    if length > _MAX_HEADER:
      raise ValueError(f'a header of {length} bytes')
    text = io.BytesIO(prefix + f.read(length))
    shape, _, dtype = _HEADER_READERS[version](text)
  except (
      ValueError,
      KeyError,
      EOFError,
      SyntaxError,
      RecursionError,
      MemoryError,  # Python's parser raises it for deep nesting.
      OverflowError,
      tokenize.TokenError,
  ) as e:
    raise errors.DataError(f'{where}: not a NumPy array ({e})') from e
  return shape, dtype
