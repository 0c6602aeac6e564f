"""Archives of tensors in torch's format, read and written without torch.

A file that `torch.save` writes is a zip archive. Its entry `data.pkl` is a
pickle, which describes a dict of tensors, and each entry `data/N` holds the
bytes of one storage. Unpickling the file of a stranger would run any code that
it contains; `torch_pickle.py` interprets the pickle instead. Sizes are checked
before data is read.

The writer needs no torch either, so that exports have no further requirement
and equal tensors result in equal files.
"""

from collections.abc import Mapping
import math
import os
import pathlib
import zipfile

import numpy as np

from jumprelu import errors
from jumprelu.files import torch_pickle, zips
from jumprelu.files.torch_pickle import Refused, Tensor

# A description of tensors is short; its size bounds the reader's memory.
_MAX_PICKLE = 4 * 2**20
# Tensors may share storages. Together they are at most this often as large as
# the file.
_MAX_SHARED = 4
# The date of every entry, so that equal tensors result in equal files.
_DATE = (1980, 1, 1, 0, 0, 0)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns the tensors of a file, by name.

  Args:
    path: A file that `torch.save` wrote, with a dict of tensors.

  Raises:
    MissingInputError: The file does not exist.
    DataError: The file is damaged, or contains anything but tensors.
  """
  path = pathlib.Path(path)
  try:
    with zipfile.ZipFile(path) as archive:
      return _read(archive)
  except FileNotFoundError as e:
    raise errors.MissingInputError(f'{path}: no such file') from e
  except zipfile.BadZipFile as e:
    raise errors.DataError(
        f'{path}: damaged, or written before torch 1.6 ({e}); load it with'
        ' torch and weights_only=True, and save it again'
    ) from e
  except (Refused, *zips.DAMAGE) as e:
    if errors.is_wrong_path(e):
      raise
    raise errors.DataError(
        f'{path}: not a dict of tensors ({e}); nothing in it was run'
    ) from e


def _read(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
  entries = {info.filename: info for info in archive.infolist()}
  pickles = [name for name in entries if name.endswith('/data.pkl')]
  if len(pickles) != 1:
    raise Refused('wanted: an entry data.pkl')
  folder = pickles[0].removesuffix('data.pkl')
  for name, info in entries.items():
    # Torch does not compress. A small file could otherwise fill the memory.
    if info.compress_type != zipfile.ZIP_STORED:
      raise Refused(f'the entry {name} is compressed')
  if (size := entries[pickles[0]].file_size) > _MAX_PICKLE:
    raise Refused(f'data.pkl has {size:,} bytes')
  order = f'{folder}byteorder'
  if order in entries and archive.read(order).strip() != b'little':
    raise Refused('its byte order is not little')
  tensors = torch_pickle.load(archive.read(pickles[0]))
  total = 0
  for name, tensor in tensors.items():
    if not isinstance(tensor, Tensor):
      raise Refused(f'{name!r} is no tensor')
    storage, entry = tensor.storage, f'{folder}data/{tensor.storage.entry}'
    wanted = storage.size * storage.dtype.itemsize
    if entry not in entries or entries[entry].file_size != wanted:
      raise Refused(f'the storage of {name!r} has another size')
    total += math.prod(tensor.shape) * storage.dtype.itemsize
  if total > _MAX_SHARED * sum(info.file_size for info in entries.values()):
    raise Refused('its tensors are much larger than the file')
  return {
      name: _array(archive.read(f'{folder}data/{tensor.storage.entry}'), tensor)
      for name, tensor in tensors.items()
  }


def _array(data: bytes, tensor: Tensor) -> np.ndarray:
  """Returns a copy of a tensor's elements, which are within its storage."""
  storage = np.frombuffer(data, tensor.storage.dtype)
  view = np.lib.stride_tricks.as_strided(
      storage[tensor.offset :],
      tensor.shape,
      [s * storage.itemsize for s in tensor.strides],
      writeable=False,
  )
  return view.copy(order='C')


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]
) -> None:
  """Writes arrays as a state dict that `torch.load(weights_only=True)` reads.

  Raises:
    ValueError: An array's type is not one of torch's.
  """
  description = torch_pickle.dump(arrays)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:

    def add(name: str, data: bytes) -> None:
      archive.writestr(zipfile.ZipInfo(f'archive/{name}', _DATE), data)

    add('data.pkl', description)
    add('byteorder', b'little')
    for number, array in enumerate(arrays.values()):
      add(f'data/{number}', np.ascontiguousarray(array).tobytes())
    add('version', b'3\n')
