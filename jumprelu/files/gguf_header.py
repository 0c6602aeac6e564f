"""Headers of GGUF files, checked against the file's size.

Anyone can forge a header. Every count, length and offset is therefore compared
with the file's size before anything of that size is allocated. Arrays and
tensors are located, but not read.
"""

import math
import os
import pathlib
import struct
from typing import Any, BinaryIO, NamedTuple

from jumprelu import errors

Shape = tuple[int, ...]

_MAGIC = b'GGUF'
_VERSIONS = (2, 3)
CURE = 'fetch it again'

# Limits far above those of real files, so that a forged count fails at once.
_MAX_ENTRIES = 65_536
_MAX_NAME = 65_535
_MAX_STRING = 2**20
_MAX_STRINGS = 2**22
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 2**20
# The smallest entries: an empty name, a type and a value of one byte; an empty
# name, a count of dimensions, one dimension, a type and an offset.
_MIN_ENTRY = 8 + 4 + 1
_MIN_TENSOR = 8 + 4 + 8 + 4 + 8


class _Type(NamedTuple):
  """A type of tensor: blocks of `length` values in `size` bytes."""

  name: str
  length: int
  size: int


# By their numbers in GGUF.
_TYPES = {
    0: _Type('F32', 1, 4),
    1: _Type('F16', 1, 2),
    2: _Type('Q4_0', 32, 18),
    6: _Type('Q5_0', 32, 22),
    8: _Type('Q8_0', 32, 34),
    12: _Type('Q4_K', 256, 144),
    13: _Type('Q5_K', 256, 176),
    14: _Type('Q6_K', 256, 210),
    30: _Type('BF16', 1, 2),
}
# The types of metadata by their numbers, as formats of `struct` and NumPy.
_U32, _U64 = '<I', '<Q'
NUMBERS = {
    0: '<B',
    1: '<b',
    2: '<H',
    3: '<h',
    4: _U32,
    5: '<i',
    6: '<f',
    7: '<?',
    10: _U64,
    11: '<q',
    12: '<d',
}
STRING = 8
_ARRAY = 9


class Array(NamedTuple):
  """An array in the metadata that has not been read."""

  type: int
  count: int
  offset: int
  size: int


class Tensor(NamedTuple):
  """A tensor that has not been read; the last axis changes fastest."""

  shape: Shape
  type: int
  offset: int
  size: int


class Header(NamedTuple):
  """The contents of a header.

  Attributes:
    metadata: Numbers, booleans and strings by name; arrays as `Array`.
    tensors: The tensors by name.
  """

  metadata: dict[str, Any]
  tensors: dict[str, Tensor]


def read(path: pathlib.Path) -> Header:
  """Returns the header of a file.

  Raises:
    MissingInputError: if there is no such file.
    DataError: if the file is damaged, truncated or in another format.
  """
  try:
    with open(path, 'rb') as file:
      reader = _Reader(path, file)
      entries, tensors = reader.counts()
      metadata = reader.metadata(entries)
      alignment = _alignment(path, metadata)
      return Header(metadata, reader.tensors(tensors, alignment))
  except FileNotFoundError as e:
    raise errors.MissingInputError(f'{path}: no such file') from e
  except OSError as e:
    raise errors.DataError(f'{path}: not readable: {e.strerror}') from e


def is_gguf(path: pathlib.Path) -> bool:
  """Returns whether an existing file is named or begins like a GGUF file."""
  if path.suffix == '.gguf':
    return True
  with open(path, 'rb') as file:
    return file.read(len(_MAGIC)) == _MAGIC


def type_names() -> list[str]:
  """Returns the names of the types of tensors that can be read."""
  return sorted(kind.name for kind in _TYPES.values())


def _alignment(path: pathlib.Path, metadata: dict[str, Any]) -> int:
  value = metadata.get('general.alignment', 32)
  if (
      type(value) is not int
      or not 0 < value <= _MAX_ALIGNMENT
      or value & (value - 1)
  ):
    raise errors.DataError(
        f'{path}: general.alignment is {_short(value)}, wanted a power of'
        f' two up to {_MAX_ALIGNMENT:,}; {CURE}'
    )
  return value


def _short(value: Any) -> str:
  """Returns a value's `repr`, which is one line, of at most 60 characters."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


class _Reader:
  """Reads a header in the order of its bytes."""

  def __init__(self, path: pathlib.Path, file: BinaryIO):
    self._path = path
    self._file = file
    self._size = os.fstat(file.fileno()).st_size
    self._position = 0

  def counts(self) -> tuple[int, int]:
    """Returns the numbers of metadata entries and of tensors."""
    magic = self._file.read(4)
    self._position = len(magic)
    if magic != _MAGIC:
      raise errors.DataError(
          f'{self._path}: not a GGUF file: it begins with {magic!r}, wanted'
          f' {_MAGIC!r}; pass a file of a Gemma in GGUF'
      )
    version = self._number(_U32, 'version')
    if version not in _VERSIONS:
      # The first version of big-endian files was 3.
      swapped = int.from_bytes(version.to_bytes(4, 'little'), 'big')
      form = 'big-endian' if swapped in _VERSIONS else f'of version {version}'
      raise errors.DataError(
          f'{self._path}: is {form}, wanted a little-endian GGUF of version'
          f' {" or ".join(map(str, _VERSIONS))}; convert it again'
      )
    tensors = self._number(_U64, 'count of tensors')
    entries = self._number(_U64, 'count of metadata')
    self._check_count('tensors', tensors, _MIN_TENSOR)
    self._check_count('metadata', entries, _MIN_ENTRY)
    return entries, tensors

  def metadata(self, count: int) -> dict[str, Any]:
    """Returns the metadata, with arrays as `Array`."""
    result = {}
    for number in range(count):
      key = self._name(f'name of metadata entry {number}')
      if key in result:
        raise self._damaged(f'{_short(key)} is listed twice')
      result[key] = self._value(_short(key))
    return result

  def tensors(self, count: int, alignment: int) -> dict[str, Tensor]:
    """Returns the tensors; offsets are from the start of the file."""
    result = {}
    for number in range(count):
      name = self._name(f'name of tensor {number}')
      if name in result:
        raise self._damaged(f'tensor {_short(name)} is listed twice')
      result[name] = self._tensor(f'tensor {_short(name)}', alignment)
    start = -(-self._position // alignment) * alignment
    result = {
        name: tensor._replace(offset=start + tensor.offset)
        for name, tensor in result.items()
    }
    end, last = start, ''
    for name, tensor in sorted(result.items(), key=lambda item: item[1].offset):
      if tensor.offset < end:
        raise self._damaged(
            f'tensors {_short(last)} and {_short(name)} overlap'
        )
      end, last = tensor.offset + tensor.size, name
      if end > self._size:
        raise self._damaged(
            f'tensor {_short(name)} needs bytes {tensor.offset:,} to {end:,},'
            f' but the file has {self._size:,}'
        )
    return result

  def _tensor(self, what: str, alignment: int) -> Tensor:
    dimensions = self._number(_U32, f'count of dimensions of {what}')
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
      raise self._damaged(
          f'{what} has {dimensions:,} dimensions, wanted 1 to {_MAX_DIMENSIONS}'
      )
    # The first dimension in the file changes fastest.
    shape = tuple(
        self._number(_U64, f'dimensions of {what}') for _ in range(dimensions)
    )[::-1]
    kind = _TYPES.get(number := self._number(_U32, f'type of {what}'))
    if kind is None:
      raise errors.DataError(
          f'{self._path}: {what} is of type {number}, wanted'
          f' {", ".join(type_names())}; quantise the model again'
      )
    offset = self._number(_U64, f'offset of {what}')
    if offset % alignment:
      raise self._damaged(
          f'the offset of {what}, {offset:,}, is not a multiple of {alignment}'
      )
    if math.prod(shape) == 0 or shape[-1] % kind.length:
      raise self._damaged(
          f'{what} has shape {shape}, wanted rows of a multiple of'
          f' {kind.length} values ({kind.name})'
      )
    size = math.prod(shape) // kind.length * kind.size
    if size > self._size:
      raise self._damaged(
          f'{what} has shape {shape} and needs {size:,} bytes, but the file has'
          f' {self._size:,}'
      )
    return Tensor(shape, number, offset, size)

  def _value(self, what: str) -> Any:
    kind = self._number(_U32, f'type of {what}')
    if kind in NUMBERS:
      return self._number(NUMBERS[kind], what)
    if kind == STRING:
      return self._string(what, _MAX_STRING)
    if kind == _ARRAY:
      return self._array(what)
    raise self._damaged(f'{what} is of an unknown type, {kind}')

  def _array(self, what: str) -> Array:
    kind = self._number(_U32, f'type of {what}')
    count = self._number(_U64, f'length of {what}')
    start = self._position
    if kind in NUMBERS:
      self._skip(count * struct.calcsize(NUMBERS[kind]), what)
    elif kind == STRING:
      self._check_room(count * 8, what)
      if count > _MAX_STRINGS:
        raise self._damaged(
            f'{what} has {count:,} strings, wanted up to {_MAX_STRINGS:,}'
        )
      for _ in range(count):
        self._skip(self._number(_U64, what), what)
    else:
      raise self._damaged(f'{what} is an array of an unknown type, {kind}')
    return Array(kind, count, start, self._position - start)

  def _name(self, what: str) -> str:
    return self._string(what, _MAX_NAME)

  def _string(self, what: str, limit: int) -> str:
    length = self._number(_U64, f'length of {what}')
    if length > limit:
      raise self._damaged(
          f'{what} has {length:,} bytes, wanted up to {limit:,}'
      )
    try:
      return self._bytes(length, what).decode()
    except UnicodeDecodeError:
      raise self._damaged(f'{what} is not UTF-8') from None

  def _number(self, form: str, what: str) -> Any:
    return struct.unpack(form, self._bytes(struct.calcsize(form), what))[0]

  def _bytes(self, count: int, what: str) -> bytes:
    self._check_room(count, what)
    self._position += count
    return self._file.read(count)

  def _skip(self, count: int, what: str) -> None:
    self._check_room(count, what)
    self._position += count
    self._file.seek(self._position)

  def _check_room(self, count: int, what: str) -> None:
    if count > (rest := self._size - self._position):
      raise self._damaged(
          f'{what} needs {count:,} bytes, but {rest:,} bytes are left'
      )

  def _check_count(self, what: str, count: int, smallest: int) -> None:
    limit = min(_MAX_ENTRIES, (self._size - self._position) // smallest)
    if count > limit:
      raise self._damaged(
          f'the count of {what} is {count:,}, but a file of {self._size:,}'
          f' bytes has at most {limit:,}'
      )

  def _damaged(self, problem: str) -> errors.DataError:
    return errors.DataError(f'{self._path}: damaged: {problem}; {CURE}')
