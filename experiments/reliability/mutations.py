"""Seeded mutations of bytes, of text and of JSON.

Each function returns changed contents and draws from a `random.Random` only, so
that a case is reproduced from its seed.
"""

from collections.abc import Callable, Iterator
import copy
import json
import random
import re
from typing import Any

# Numbers at the limits of types, and sizes that no memory has.
_INTEGERS = (
    0, 1, 2, 7, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40,
    2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
_NUMBERS = (
    *map(str, _INTEGERS), '-1', '-0', '1e9', '1e308', '-1e308', '1e-320', '1e999',
    'nan', 'inf', '-inf', 'NaN', 'Infinity', '0.5', '1_000', '0x10', '²', '',
    '9' * 40, '9' * 400, '9' * 5000,
)  # fmt: skip
_TEXTS = (
    '', ' ', 'a', '²', '\x00', '\n', '\ud800', '\u202e', '..', '../../evil',
    '/etc/passwd', '/dev/null', '~', '~nobody/x', '%s%n', '$(touch evil)', ',',
    '=', '.', '-', '--', 'null', 'true', '1', '-1', '1e9', 'nan', 'float32',
    'bfloat16', 'O', '<f8', 'a' * 300, 'a' * 5000, '[' * 3000, '{}',
    'gs://nowhere/x', 'resid_post', 'layer_1.resid_post', 'jumprelu', 'topk',
)  # fmt: skip
# Values of JSON that Python cannot write; they are inserted as text.
_RAW = (
    '9' * 5000, '-' + '9' * 5000, '1e400', '[' * 5000 + ']' * 5000,
    '{"a":' * 5000 + '1' + '}' * 5000, '[[[[', '"\\ud800"', '-', '',
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 16, 2**31, 2**63, 10**18, 10**30,
    10**400, 0.0, 0.5, -0.5, 1.0, 16.0, 1e9, 1e308, -1e308, 1e-320,
    float('nan'), float('inf'), float('-inf'), *_TEXTS, [], {}, [[]], [None],
    [0], [-1], [1, 'a'], ['a'], [[1]], {'': None}, {'a': 1}, {'a': {'a': []}},
)  # fmt: skip
_MARK = 'mark-of-a-raw-value'
# Half of the places are this near to an end, where formats have their sizes.
_NEAR = 400
_DIGITS = re.compile(rb'-?[0-9][0-9.]*')


def of_bytes(data: bytes, rng: random.Random) -> bytes:
  """Returns bytes with one to four changes."""
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    data = rng.choice(_BYTES)(data, rng)
  return data


def of_text(data: bytes, rng: random.Random) -> bytes:
  """Returns text with changed bytes, numbers, lines, or hostile texts."""
  kind = rng.randrange(4)
  if kind == 0:
    return of_bytes(data, rng)
  if kind == 1:
    return _replace_digits(data, rng)
  lines = data.splitlines(keepends=True) or [b'']
  at = rng.randrange(len(lines))
  if kind == 2:
    rng.shuffle(lines)
  else:
    value = rng.choice((*_TEXTS, *_NUMBERS, *_RAW))
    lines[at] = value.encode('utf-8', 'surrogatepass') + b'\n'
  return b''.join(lines)


def of_json(data: bytes, rng: random.Random) -> bytes:
  """Returns JSON with one to three changed nodes, or changed as text."""
  if rng.random() < 0.15:
    return of_text(data, rng)
  value = json.loads(data)
  raw = ''
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    change = rng.choice(_RAW) if rng.random() < 0.1 else None
    raw = raw if change is None else change
    value = of_tree(value, rng, None if change is None else _MARK)
  text = json.dumps(value)
  return text.replace(f'"{_MARK}"', raw).encode()


def of_lines(data: bytes, rng: random.Random) -> bytes:
  """Returns lines of JSON with a line changed, removed or doubled."""
  lines = data.splitlines(keepends=True)
  if not lines or rng.random() < 0.15:
    return of_text(data, rng)
  at = rng.randrange(len(lines))
  kind = rng.randrange(6)
  if kind == 0:
    del lines[at]
  elif kind == 1:
    lines.insert(rng.randrange(len(lines) + 1), lines[at])
  else:
    lines[at] = of_json(lines[at], rng) + b'\n'
  return b''.join(lines)


def of_arguments(data: bytes, rng: random.Random) -> bytes:
  """Returns lines --flag=value with one to three changed lines."""
  lines = data.decode().split('\n')
  for _ in range(rng.choice((1, 1, 2, 3))):
    at = rng.randrange(len(lines))
    name, _, value = lines[at].partition('=')
    hostile = rng.choice((*_TEXTS, *_NUMBERS))
    lines[at] = rng.choice(
        (
            f'{name}={hostile}',
            f'{name}={value}{hostile}',
            f'{name}={value},{hostile}',
            f'{name}={hostile}{value}',
            f'{name}={hostile}:{value}',
            name,
            hostile,
            f'{name[: len(name) // 2]}={value}',
            of_bytes(lines[at].encode('utf-8', 'replace'), rng).decode(
                'utf-8', 'replace'
            ),
        )
    )
  text = '\n'.join(lines)
  return text.encode('utf-8', 'surrogatepass')


def of_tree(value: Any, rng: random.Random, new: Any = None) -> Any:
  """Returns JSON values with one node replaced, removed, renamed or added.

  Args:
    value: The values.
    rng: The source of choices.
    new: The value to put in; None for a hostile one.
  """
  nodes = list(_places(value))
  parent: Any = None
  key: Any = None
  if nodes:
    parent, key = rng.choice(nodes)
  if parent is None:
    return copy.deepcopy(rng.choice(_VALUES)) if new is None else new
  kind = rng.randrange(10) if new is None else 9
  if kind == 0:
    del parent[key]
  elif kind == 1 and isinstance(parent, dict):
    parent[rng.choice(_TEXTS) or 'x'] = parent.pop(key)
  elif kind == 2 and isinstance(parent, dict):
    parent[rng.choice(('unknown', key + 'x', key[:-1]))] = parent[key]
  elif kind == 3:
    parent[key] = [parent[key]]
  elif kind == 4:
    # Another node of the same tree, which has a plausible type.
    other, name = rng.choice(nodes)
    parent[key] = json.loads(json.dumps(other[name]))
  elif kind == 5 and isinstance(parent[key], int | float):
    number = parent[key]
    if abs(number) < 1e30:
      parent[key] = rng.choice((-number, number + 1, number * 2, str(number)))
  elif kind == 6 and isinstance(parent, list):
    parent.insert(key, json.loads(json.dumps(parent[key])))
  else:
    parent[key] = copy.deepcopy(rng.choice(_VALUES)) if new is None else new
  return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
  """Yields (parent, key) of each node below the top."""
  stack = [value]
  while stack:
    parent = stack.pop()
    if isinstance(parent, dict):
      pairs = list(parent.items())
    elif isinstance(parent, list):
      pairs = list(enumerate(parent))
    else:
      continue
    for key, child in pairs:
      yield parent, key
      stack.append(child)


def _place(data: bytes, rng: random.Random) -> int:
  """Returns an index, in half of the cases near to one of the ends."""
  kind = rng.randrange(4)
  if kind == 0:
    return rng.randrange(min(len(data), _NEAR))
  if kind == 1:
    return len(data) - 1 - rng.randrange(min(len(data), _NEAR))
  return rng.randrange(len(data))


def _flip(data: bytes, rng: random.Random) -> bytes:
  at = _place(data, rng)
  changed = bytearray(data)
  changed[at] ^= 1 << rng.randrange(8)
  return bytes(changed)


def _set(data: bytes, rng: random.Random) -> bytes:
  at = _place(data, rng)
  changed = bytearray(data)
  changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
  return bytes(changed)


def _truncate(data: bytes, rng: random.Random) -> bytes:
  return data[: rng.choice((0, 1, len(data) // 2, _place(data, rng)))]


def _remove(data: bytes, rng: random.Random) -> bytes:
  at = _place(data, rng)
  return data[:at] + data[at + rng.choice((1, 2, 8, 64)) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
  at = _place(data, rng)
  new = rng.choice((b'\0', b'\xff' * 8, b'[', rng.randbytes(rng.randrange(32))))
  return data[:at] + new + data[at:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
  at = _place(data, rng)
  part = data[at : at + rng.choice((1, 8, 64, 512))]
  return data[:at] + part + data[at:]


def _zero(data: bytes, rng: random.Random) -> bytes:
  at = _place(data, rng)
  size = min(rng.choice((4, 8, 64)), len(data) - at)
  return data[:at] + bytes(size) + data[at + size :]


def _claim(data: bytes, rng: random.Random) -> bytes:
  """Writes a number over 2, 4 or 8 bytes, such as a size."""
  at, size = _place(data, rng), rng.choice((2, 4, 8))
  number = rng.choice(_INTEGERS) % 2 ** (8 * size)
  raw = number.to_bytes(size, rng.choice(('little', 'little', 'big')))
  return data[:at] + raw[: len(data) - at] + data[at + size :]


def _replace_digits(data: bytes, rng: random.Random) -> bytes:
  matches = list(_DIGITS.finditer(data[:100_000]))
  if not matches:
    return _flip(data, rng) if data else data
  match = rng.choice(matches)
  new = rng.choice(_NUMBERS).encode()
  return data[: match.start()] + new + data[match.end() :]


def _or_empty(
    change: Callable[[bytes, random.Random], bytes],
) -> Callable[[bytes, random.Random], bytes]:
  """Returns a change that leaves empty bytes as they are."""
  return lambda data, rng: change(data, rng) if data else data


_BYTES = tuple(
    map(
        _or_empty,
        (
            _flip, _flip, _set, _truncate, _remove, _insert, _repeat, _zero,
            _claim, _claim, _replace_digits,
        ),
    )
)  # fmt: skip
