"""GGUF files: metadata and tensors, read when they are needed.

A GGUF file is a header, which holds metadata and a table of tensors, followed
by the values of the tensors, most of them quantised in blocks.
"""

from collections.abc import Iterable
import math
import os
import pathlib
import struct

import numpy as np

from jumprelu import errors, extras
from jumprelu.files import gguf_header

# The number of bytes that are read and dequantised at once.
_CHUNK = 2**22


class GgufFile:
  """The header of a GGUF file, and a reader of its arrays and tensors.

  Attributes:
    path: The file.
    metadata: Numbers, booleans and strings by name; arrays are located only.
    tensors: The tensors by name.

  Raises:
    MissingInputError: if there is no such file.
    DataError: if the file is damaged, truncated or in another format.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path)
    self.metadata, self.tensors = gguf_header.read(self.path)

  def strings(self, key: str) -> list[str] | None:
    """Returns an array of strings, or None if there is no entry `key`.

    Raises:
      DataError: if the entry has another type or is not UTF-8.
    """
    array = self._array(key, (gguf_header.STRING,), 'strings')
    if array is None:
      return None
    raw, position, result = self._read(array), 0, []
    for _ in range(array.count):
      (length,) = struct.unpack_from('<Q', raw, position)
      start = position + 8
      position = start + length
      result.append(raw[start:position])
    try:
      return [text.decode() for text in result]
    except UnicodeDecodeError as e:
      raise errors.DataError(
          f'{self.path}: {key} has a string that is not UTF-8;'
          f' {gguf_header.CURE}'
      ) from e

  def numbers(self, key: str) -> np.ndarray | None:
    """Returns an array of numbers, or None if there is no entry `key`.

    Raises:
      DataError: if the entry has another type.
    """
    array = self._array(key, gguf_header.NUMBERS, 'numbers')
    if array is None:
      return None
    return np.frombuffer(self._read(array), gguf_header.NUMBERS[array.type])

  def tensor(self, name: str) -> np.ndarray:
    """Returns a tensor's values in float32.

    Only a part of the stored values is in memory at a time.

    Raises:
      MissingExtraError: if the package `gguf` is not installed.
      DataError: if values are missing or not finite.
    """
    with extras.imports():
      import gguf

    tensor = self.tensors[name]
    kind = gguf.GGMLQuantizationType(tensor.type)
    *axes, columns = tensor.shape
    rows = math.prod(axes)
    out = np.empty((rows, columns), np.float32)
    per_row = tensor.size // rows
    step = max(1, _CHUNK // per_row)
    with open(self.path, 'rb') as file:
      file.seek(tensor.offset)
      for start in range(0, rows, step):
        part = out[start : start + step]
        raw = np.fromfile(file, np.uint8, len(part) * per_row)
        if raw.size != len(part) * per_row:
          raise errors.DataError(
              f'{self.path}: tensor {name} ends early; {gguf_header.CURE}'
          )
        # Infinite factors are reported below.
        with np.errstate(invalid='ignore', over='ignore'):
          part[:] = gguf.dequantize(raw.reshape(len(part), per_row), kind)
        if not np.isfinite(part).all():
          raise errors.DataError(
              f'{self.path}: tensor {name} has non-finite values;'
              f' {gguf_header.CURE}'
          )
    return out.reshape(tensor.shape)

  def _array(
      self, key: str, types: Iterable[int], words: str
  ) -> gguf_header.Array | None:
    array = self.metadata.get(key)
    if array is None:
      return None
    if not isinstance(array, gguf_header.Array) or array.type not in types:
      raise errors.DataError(
          f'{self.path}: {key} is not an array of {words}; {gguf_header.CURE}'
      )
    return array

  def _read(self, array: gguf_header.Array) -> bytes:
    with open(self.path, 'rb') as file:
      file.seek(array.offset)
      raw = file.read(array.size)
    if len(raw) != array.size:
      raise errors.DataError(
          f'{self.path}: ends in its metadata; {gguf_header.CURE}'
      )
    return raw
