"""TPU chips and their topologies.

Peak rates are Google's published ones: bf16 FLOP per second, and bytes per
second of HBM and of all links of a chip together.
"""

import dataclasses
import math
import re

from jumprelu import errors


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of TPU chip."""

  name: str
  hbm_bytes: int
  flops: float
  hbm_bandwidth: float
  link_bandwidth: float
  # Topologies of slices, in the order of their number of chips.
  slices: tuple[str, ...]


_GIB = 2**30
_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBE = (
    '2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8',
)  # fmt: skip

CHIPS = {
    chip.name: chip
    for chip in (
        Chip('v3', 32 * _GIB, 123e12, 0.90e12, 82e9, ('2x2', '4x2', '4x4')),
        Chip('v4', 32 * _GIB, 275e12, 1.23e12, 300e9, _CUBE),
        Chip('v5e', 16 * _GIB, 197e12, 0.82e12, 200e9, _FLAT),
        Chip('v5p', 95 * _GIB, 459e12, 2.77e12, 600e9, _CUBE),
        Chip('v6e', 32 * _GIB, 918e12, 1.64e12, 448e9, _FLAT),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice: a kind of chip and the shape of their grid."""

  chip: Chip
  shape: str

  @property
  def name(self) -> str:
    """The name in flags and output, such as `v5e:4x4`."""
    return f'{self.chip.name}:{self.shape}'

  @property
  def chips(self) -> int:
    """The number of chips; each is one JAX device."""
    return math.prod(map(int, self.shape.split('x')))

  def larger(self) -> 'Topology | None':
    """Returns the next larger slice of the same chips, or None."""
    for shape in self.chip.slices:
      other = Topology(self.chip, shape)
      if other.chips > self.chips:
        return other
    return None


def parse(text: str) -> Topology:
  """Returns the topology with a name such as `v5e:4x4`.

  Raises:
    UserError: The chip or the shape is unknown; the message lists the known.
  """
  name, _, shape = text.partition(':')
  if name not in CHIPS:
    raise errors.UserError(
        f'--topology={text}: chip {name!r} is unknown; known:'
        f' {", ".join(CHIPS)}; write CHIP:SHAPE, for example v5e:4x4'
    )
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){1,2}', shape):
    raise errors.UserError(
        f'--topology={text}: {shape!r} is not a shape; slices of {name}:'
        f' {", ".join(CHIPS[name].slices)}'
    )
  return Topology(CHIPS[name], shape)
