"""TPU chips and their topologies, with the peak rates that Google publishes."""

import dataclasses
import math
import re

from jumprelu import errors


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of TPU chip."""

  name: str
  hbm_bytes: int
  # FLOP per second in bfloat16.
  flops: float
  # Bytes per second.
  hbm_bandwidth: float
  # Bytes per second of all links of a chip together.
  link_bandwidth: float
  # The shapes of slices, from the fewest chips to the most.
  slices: tuple[str, ...]


_GIB = 2**30
_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBE = (
    '2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8',
)  # fmt: skip

CHIPS = {
    chip.name: chip
    for chip in (
        Chip('v3', 32 * _GIB, 123e12, 0.90e12, 328e9, ('2x2', '4x2', '4x4')),
        Chip('v4', 32 * _GIB, 275e12, 1.23e12, 300e9, _CUBE),
        Chip('v5e', 16 * _GIB, 197e12, 0.82e12, 200e9, _FLAT),
        Chip('v5p', 95 * _GIB, 459e12, 2.77e12, 600e9, _CUBE),
        Chip('v6e', 32 * _GIB, 918e12, 1.64e12, 448e9, _FLAT),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice of a TPU pod: a grid of chips of one kind."""

  chip: Chip
  # The size of each axis of the grid, such as '4x4'.
  shape: str

  @property
  def name(self) -> str:
    """The name in flags and output, such as `v5e:4x4`."""
    return f'{self.chip.name}:{self.shape}'

  @property
  def chips(self) -> int:
    """The number of chips.

    Plans treat each chip as one JAX device. This is wrong for v3 only, because
    each of a v3 chip's two cores is a device.
    """
    return math.prod(map(int, self.shape.split('x')))

  def larger(self) -> 'Topology | None':
    """Returns the next larger slice of the same kind of chip, or None."""
    for shape in self.chip.slices:
      other = Topology(self.chip, shape)
      if other.chips > self.chips:
        return other
    return None


def parse(text: str) -> Topology:
  """Returns the topology with a name such as `v5e:4x4`.

  The shape need not be one of `Chip.slices`.

  Raises:
    UserError: The chip is unknown, or the shape is malformed. The message lists
      the known chips or shapes.
  """
  name, _, shape = text.partition(':')
  if name not in CHIPS:
    raise errors.UserError(
        f'--topology={text}: chip {name!r} is unknown; write CHIP:SHAPE, for'
        f' example v5e:4x4, with one of the chips {", ".join(CHIPS)}'
    )
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){1,2}', shape):
    raise errors.UserError(
        f'--topology={text}: {shape!r} is not a shape; write {name}:SHAPE, with'
        f' one of the shapes {", ".join(CHIPS[name].slices)}'
    )
  return Topology(CHIPS[name], shape)
