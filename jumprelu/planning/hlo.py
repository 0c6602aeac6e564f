"""Reading what XLA has compiled: its collectives and host transfers."""

import math
import re
from typing import NamedTuple

_BYTES = {
    'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2,
    'f32': 4, 's32': 4, 'u32': 4, 'f64': 8, 's64': 8, 'u64': 8,
}  # fmt: skip
_KINDS = (
    'all-gather',
    'all-reduce',
    'all-to-all',
    'collective-permute',
    'reduce-scatter',
)
_COLLECTIVE = re.compile(
    r' = (?P<result>\(.*?\)|\S+) (?P<kind>' + '|'.join(_KINDS) + r')'
    r'(?P<start>-start)?\('
)
_ARRAY = re.compile(r'\b(\w+)\[([\d,]*)\]')
_TRANSFER = re.compile(
    r' = .* (infeed|outfeed|send|recv|copy-to-host)(-start|-done)?\('
    r'|custom_call_target="[^"]*(callback|[Hh]ost)[^"]*"'
)


class Collective(NamedTuple):
  """One collective of a program: what every device holds afterwards."""

  kind: str
  # The largest array of the result, written as in HLO: f32[4096,2304].
  largest: str
  # Of all arrays of the result.
  bytes: int


def collectives(text: str) -> tuple[Collective, ...]:
  """Lists the collectives of a compiled module, largest first."""
  found = []
  for match in _COLLECTIVE.finditer(text):
    arrays = [
        (math.prod(map(int, filter(None, shape.split(',')))) * _BYTES[kind],
         f'{kind}[{shape}]')
        for kind, shape in _ARRAY.findall(match['result'])
        if kind in _BYTES
    ]  # fmt: skip
    # An asynchronous one gives operands and results: the results are larger.
    largest = max(arrays)
    size = largest[0] if match['start'] else sum(size for size, _ in arrays)
    found.append(Collective(match['kind'], largest[1], size))
  return tuple(sorted(found, key=lambda c: -c.bytes))


def host_transfers(text: str) -> tuple[str, ...]:
  """Lists the operations of a compiled module that wait for the host."""
  return tuple(
      line.strip()[:200] for line in text.splitlines() if _TRANSFER.search(line)
  )
