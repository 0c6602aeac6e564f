"""The pickles in torch's files, interpreted without running anything in them.

Such a pickle describes a dict of tensors. `load` interprets the few opcodes
that such dicts consist of, and the few globals in `_GLOBALS`, whose names it
compares as texts. It refuses all others, and imports and calls nothing that a
file names. `dump` writes the same opcodes.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import io
import math
import pickle
import pickletools
import struct
from typing import Any

import ml_dtypes
import numpy as np

_MAX_AXES = 8

DTYPES = {
    'DoubleStorage': np.dtype('<f8'),
    'FloatStorage': np.dtype('<f4'),
    'HalfStorage': np.dtype('<f2'),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype('<i8'),
    'IntStorage': np.dtype('<i4'),
    'ShortStorage': np.dtype('<i2'),
    'CharStorage': np.dtype('i1'),
    'ByteStorage': np.dtype('u1'),
    'BoolStorage': np.dtype('?'),
}


class Refused(Exception):
  """A pickle with other content than a dict of tensors."""


@dataclasses.dataclass(frozen=True)
class Storage:
  """The bytes of one or several tensors."""

  entry: str
  dtype: np.dtype
  size: int


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A view of a storage, in numbers of elements."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Dtype:
  """A global that names the type of a storage."""

  dtype: np.dtype


class _Mark:
  """The marker on the stack."""


def load(data: bytes) -> dict[str, Any]:
  """Returns the dict that a pickle describes, with `Tensor` for tensors.

  Raises:
    Refused: The pickle is damaged, or contains anything but tensors.
  """
  stack: list[Any] = []
  memo: dict[int, Any] = {}
  try:
    for opcode, value, _ in pickletools.genops(data):
      if opcode.name == 'STOP':
        break
      _STEPS.get(opcode.name, _unknown(opcode.name))(stack, memo, value)
  except (ValueError, IndexError, KeyError, TypeError, struct.error) as e:
    raise Refused(f'damaged data.pkl: {e}') from e
  if len(stack) != 1 or not isinstance(stack[0], dict):
    raise Refused('data.pkl contains no dict')
  return stack[0]


# Each opcode's step changes the stack and the memo; `value` is its argument.
_Step = Callable[[list[Any], dict[int, Any], Any], None]


def _unknown(name: str) -> _Step:
  def step(stack, memo, value):
    del stack, memo, value
    raise Refused(f'the opcode {name} is not one of tensors')

  return step


def _push(stack, memo, value):
  del memo
  stack.append(value)


def _constant(make: Callable[[], Any]) -> _Step:
  return lambda stack, memo, value: stack.append(make())


def _ignore(stack, memo, value):
  """Skips an opcode without effect on the stack, such as the protocol's."""
  del stack, memo, value


def _global(stack, memo, value):
  """Pushes a global of the list, by its name alone."""
  del memo
  if value not in _GLOBALS:
    raise Refused(f'the global {value} is not one of tensors')
  stack.append(_GLOBALS[value])


def _reduce(stack, memo, value):
  """Applies a global of the list to its arguments."""
  del memo, value
  arguments, function = stack.pop(), stack.pop()
  if not isinstance(arguments, tuple) or function not in _CALLS.values():
    raise Refused('a call of something that makes no tensor')
  stack.append(function(*arguments))


def _persistent(stack, memo, value):
  """Pushes the storage that the tuple on the stack describes."""
  del memo, value
  match stack.pop():
    case ('storage', _Dtype(dtype), str(entry), str(), int(size)):
      if size < 0 or not entry.isdecimal():
        raise Refused(f'a storage {entry!r} of {size} elements')
      stack.append(Storage(entry, dtype, size))
    case _:
      raise Refused('a storage without type, number and size')


def _mark(stack, memo, value):
  del memo, value
  stack.append(_Mark)


def _popped(stack) -> list[Any]:
  """Removes the last marker and the items after it; returns these items."""
  items = []
  while (item := stack.pop()) is not _Mark:
    items.append(item)
  return items[::-1]


def _tuple(stack, memo, value):
  del memo, value
  stack.append(tuple(_popped(stack)))


def _tuple_of(count: int) -> _Step:
  def step(stack, memo, value):
    del memo, value
    if len(stack) < count:
      raise Refused('a tuple without its items')
    items = tuple(stack[-count:])
    del stack[-count:]
    stack.append(items)

  return step


def _set_items(stack, memo, value):
  del memo, value
  items = _popped(stack)
  _update(stack, items)


def _set_item(stack, memo, value):
  del memo, value
  item, key = stack.pop(), stack.pop()
  _update(stack, [key, item])


def _update(stack, items):
  if not isinstance(stack[-1], dict) or len(items) % 2:
    raise Refused('items of no dict')
  for key, item in zip(items[::2], items[1::2], strict=True):
    # The hash of a nested tuple would be computed by recursion.
    if not isinstance(key, str):
      raise Refused('a key that is no text')
    stack[-1][key] = item


def _build(stack, memo, value):
  """Drops the attributes of a dict: torch's `_metadata` of a state dict."""
  del memo, value
  stack.pop()
  if not isinstance(stack[-1], dict):
    raise Refused('attributes of something that is no dict')


def _put(stack, memo, value):
  memo[len(memo) if value is None else value] = stack[-1]


def _get(stack, memo, value):
  stack.append(memo[value])


def _rebuild_tensor(storage, offset, shape, strides, *rest) -> Tensor:
  """Returns a view of a storage; further arguments concern gradients."""
  del rest
  whole = (offset, *shape, *strides)
  if not (
      isinstance(storage, Storage)
      and all(isinstance(n, int) and n >= 0 for n in whole)
      and len(shape) == len(strides) <= _MAX_AXES
  ):
    raise Refused('a tensor without storage, shape and strides')
  if math.prod(shape):
    last = offset + sum(
        (n - 1) * s for n, s in zip(shape, strides, strict=True)
    )
    # Strides of 0 would make a small file a large array.
    if last >= storage.size or math.prod(shape) > storage.size:
      raise Refused(f'a tensor of shape {shape} beyond its storage')
  return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data, *rest) -> Tensor:
  """Returns a parameter's tensor; further arguments concern gradients."""
  del rest
  if not isinstance(data, Tensor):
    raise Refused('a parameter without tensor')
  return data


def _ordered_dict() -> dict[Any, Any]:
  return {}


_CALLS: dict[str, Callable[..., Any]] = {
    'collections OrderedDict': _ordered_dict,
    'torch._utils _rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils _rebuild_parameter': _rebuild_parameter,
}
_GLOBALS: dict[str, Any] = _CALLS | {
    f'torch {name}': _Dtype(dtype) for name, dtype in DTYPES.items()
}
_STEPS: dict[str, _Step] = {
    'PROTO': _ignore,
    'FRAME': _ignore,
    'GLOBAL': _global,
    'REDUCE': _reduce,
    'BINPERSID': _persistent,
    'BUILD': _build,
    'MARK': _mark,
    'TUPLE': _tuple,
    'TUPLE1': _tuple_of(1),
    'TUPLE2': _tuple_of(2),
    'TUPLE3': _tuple_of(3),
    'EMPTY_TUPLE': _constant(tuple),
    'EMPTY_DICT': _constant(dict),
    'SETITEM': _set_item,
    'SETITEMS': _set_items,
    'NONE': _constant(lambda: None),
    'NEWTRUE': _constant(lambda: True),
    'NEWFALSE': _constant(lambda: False),
    'BINUNICODE': _push,
    'SHORT_BINUNICODE': _push,
    'BININT': _push,
    'BININT1': _push,
    'BININT2': _push,
    'LONG1': _push,
    'BINPUT': _put,
    'LONG_BINPUT': _put,
    'MEMOIZE': _put,
    'BINGET': _get,
    'LONG_BINGET': _get,
}


def dump(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Returns the pickle of a state dict whose storages are numbered from 0.

  Raises:
    ValueError: An array's type is not one of torch's.
  """
  names = {dtype: name for name, dtype in DTYPES.items()}
  out = io.BytesIO()
  out.write(b'\x80\x02ccollections\nOrderedDict\n)R(')
  for number, (name, array) in enumerate(arrays.items()):
    if array.dtype not in names:
      raise ValueError(f'{name}: no tensor can be of type {array.dtype}')
    out.write(_text(name) + b'ctorch._utils\n_rebuild_tensor_v2\n((')
    out.write(_text('storage') + f'ctorch\n{names[array.dtype]}\n'.encode())
    out.write(_text(str(number)) + _text('cpu') + _int(array.size) + b'tQ')
    strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
    out.write(_int(0) + _ints(array.shape) + _ints(strides))
    out.write(b'\x89ccollections\nOrderedDict\n)RtR')
  out.write(b'u.')
  return out.getvalue()


def _text(text: str) -> bytes:
  data = text.encode()
  return pickle.BINUNICODE + struct.pack('<I', len(data)) + data


def _int(number: int) -> bytes:
  if number < 2**31:
    return pickle.BININT + struct.pack('<i', number)
  data = pickle.encode_long(number)
  return pickle.LONG1 + bytes([len(data)]) + data


def _ints(numbers: Sequence[int]) -> bytes:
  return b'(' + b''.join(map(_int, numbers)) + b't'
