"""Containers: named arrays as one string that the page's script decodes.

A container has a 4-byte header length, a JSON header {name: [type, shape,
offset]}, padded with spaces so that the arrays start at a multiple of 8, and
the arrays at multiples of 8. Offsets count from the end of the header.
"""

import base64
from collections.abc import Mapping
import gzip
import json
from typing import Any

import numpy as np

# Types that the script reads, little endian.
_TYPES = {'int8': 'i1', 'uint8': 'u1', 'uint16': 'u2', 'int32': 'i4', 'float32': 'f4'}  # fmt: skip
_JSON = 'json'
# Larger levels save 1 % and take twice as long.
_LEVEL = 6
# Bits of the mantissa that rounded floats keep: three decimal digits, and the
# zeros after them compress well.
_MANTISSA = 11


def pack(arrays: Mapping[str, Any]) -> bytes:
  """Returns a container.

  Args:
    arrays: NumPy arrays by name; other values are written as JSON.

  Raises:
    ValueError: An array has a type that the script does not read.
  """
  header, parts, offset = {}, [], 0
  for name, value in arrays.items():
    if isinstance(value, np.ndarray):
      if value.dtype.name not in _TYPES:
        raise ValueError(f'{name}: no container has arrays of {value.dtype}')
      kind, shape = _TYPES[value.dtype.name], list(value.shape)
      data = np.ascontiguousarray(value).astype('<' + kind, copy=False)
      data = data.tobytes()
    else:
      data = json.dumps(value, allow_nan=False).encode()
      kind, shape = _JSON, [len(data)]
    header[name] = [kind, shape, offset]
    parts.append(data + bytes(-len(data) % 8))
    offset += len(parts[-1])
  head = json.dumps(header, separators=(',', ':')).encode()
  head += b' ' * (-(4 + len(head)) % 8)
  return b''.join([len(head).to_bytes(4, 'little'), head, *parts])


def encode(container: bytes) -> str:
  """Returns a container as text: compressed by gzip, in base64.

  Equal containers give equal texts, because no time is stored.
  """
  return base64.b64encode(gzip.compress(container, _LEVEL, mtime=0)).decode()


def rounded(values: np.ndarray) -> np.ndarray:
  """Returns float32 values rounded to 12 significant bits."""
  bits = np.asarray(values, np.float32).view(np.uint32)
  dropped = 23 - _MANTISSA
  half = np.uint32(1 << (dropped - 1))
  kept = (bits + half) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
  finite = np.isfinite(values)
  return np.where(finite, kept, bits).astype(np.uint32).view(np.float32)
