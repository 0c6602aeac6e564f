"""Where arrays lie on the devices: the one table from logical to mesh axes.

The mesh has two axes, `data` and `tensor`. Modules name logical axes only;
this is the only file that names a PartitionSpec. A group of SAEs is laid out
in one of four ways (`LAYOUTS`); members over devices costs no gradient
collective, so it is taken wherever it fills the devices.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jumprelu import errors

# Logical axis -> mesh axes. A logical axis that is not in the table, and
# None, is replicated.
Rules = Mapping[str, tuple[str, ...]]

RULES: Rules = {
    'batch': ('data',),
    'sequences': ('data',),
    'shards': ('data',),
    'vocab': ('tensor',),
    'heads': ('tensor',),
    'kv_heads': ('tensor',),
    'ffw': ('tensor',),
}

# An SAE from this width on is split over `tensor`, where there is one.
WIDE = 2**17


@dataclasses.dataclass(frozen=True)
class Config:
  """The mesh; needs no devices to be made."""

  data: int = dataclasses.field(
      default=0,
      metadata={'help': 'devices along `data`; 0: all devices / tensor'},
  )
  tensor: int = dataclasses.field(
      default=1,
      metadata={'help': 'devices along `tensor`: LM heads and SAE latents'},
  )

  def __post_init__(self):
    if self.data < 0:
      raise errors.UserError(f'mesh.data={self.data} must be at least 0')
    if self.tensor < 1:
      raise errors.UserError(f'mesh.tensor={self.tensor} must be at least 1')


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one group lies on the mesh: a name and its own rows of the table."""

  name: str
  members: tuple[str, ...] = ()
  latents: tuple[str, ...] = ()
  batch: tuple[str, ...] = ()

  @property
  def rules(self) -> Rules:
    """The rows of the table that this layout fills in."""
    return {
        'members': self.members,
        'latents': self.latents,
        'batch': self.batch,
    }


LAYOUTS = {
    layout.name: layout
    for layout in (
        # One device.
        Layout('single'),
        # Every device holds whole members and sees the whole batch.
        Layout('members', members=('data', 'tensor')),
        # A member is split over `tensor`; the batch is gathered.
        Layout('members_latents', members=('data',), latents=('tensor',)),
        # Few members: gradients are summed over `data`.
        Layout('latents', latents=('tensor',), batch=('data',)),
    )
}


def make_mesh(config: Config, devices: Sequence[Any] | None = None) -> Mesh:
  """Makes the mesh over `devices`, by default over all there are."""
  devices = jax.devices() if devices is None else list(devices)
  data = config.data or len(devices) // config.tensor
  if data * config.tensor != len(devices):
    raise errors.UserError(
        f'mesh.data={config.data} x mesh.tensor={config.tensor} does not use'
        f' the {len(devices)} devices; mesh.tensor must be one of'
        f' {_divisors(len(devices))}'
    )
  return Mesh(
      np.asarray(devices).reshape(data, config.tensor),
      ('data', 'tensor'),
      axis_types=(AxisType.Auto,) * 2,
  )


def spec(*logical: str | None, rules: Rules = RULES) -> PartitionSpec:
  """Turns logical axes into mesh axes; refuses one mesh axis used twice."""
  taken: dict[str, str | None] = {}
  entries = []
  for name in logical:
    axes = rules.get(name, ()) if name is not None else ()
    for axis in axes:
      if axis in taken:
        raise ValueError(
            f'logical axes {taken[axis]!r} and {name!r} of {logical} both lie'
            f' on mesh axis {axis!r}'
        )
      taken[axis] = name
    entries.append(axes[0] if len(axes) == 1 else (axes or None))
  return PartitionSpec(*entries)


def named(
    mesh: Mesh,
    *logical: str | None,
    rules: Rules = RULES,
    shape: tuple[int, ...] | None = None,
) -> NamedSharding:
  """The sharding of an array with these logical axes.

  With `shape`, an axis that its mesh axes do not divide is replicated (key
  and value heads, on more devices than there are).
  """
  if shape is not None:
    logical = tuple(
        name if size % axis_size(mesh, name, rules=rules) == 0 else None
        for name, size in zip(logical, shape, strict=True)
    )
  return NamedSharding(mesh, spec(*logical, rules=rules))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def constrain(
    x: jax.Array,
    mesh: Mesh | None,
    *logical: str | None,
    rules: Rules = RULES,
) -> jax.Array:
  """Pins the layout of `x` inside jit; a no-op without a mesh to speak of."""
  if mesh is None or mesh.size == 1:
    return x
  sharding = named(mesh, *logical, rules=rules, shape=x.shape)
  return jax.lax.with_sharding_constraint(x, sharding)


def axis_size(mesh: Mesh, name: str | None, *, rules: Rules = RULES) -> int:
  """Number of parts into which the logical axis is cut."""
  axes = rules.get(name, ()) if name is not None else ()
  return math.prod(mesh.shape[axis] for axis in axes)


def choose_layout(mesh: Mesh | None, members: int, width: int) -> Layout:
  """Picks a group's layout.

  Members first, where at least half of the slots hold one and a member fits
  on a device; then members over `data` and latents over `tensor`; else the
  batch over `data`. An axis of size 1 costs nothing in any of them.
  """
  if mesh is None or mesh.size == 1:
    return LAYOUTS['single']
  tensor = mesh.shape['tensor']
  fits = width < WIDE or tensor == 1
  if fits and 2 * members >= mesh.size:
    return LAYOUTS['members']
  if width % tensor:
    raise errors.UserError(
        f'width {width} is not divisible by mesh.tensor={tensor}; nearest:'
        f' {width - width % tensor} or {width + tensor - width % tensor}'
    )
  if 2 * members >= mesh.shape['data'] and members > 1:
    return LAYOUTS['members_latents']
  return LAYOUTS['latents']


def pad_members(mesh: Mesh | None, layout: Layout, members: int) -> int:
  """Rounds `members` up to what the layout's mesh axes divide."""
  if mesh is None:
    return members
  parts = axis_size(mesh, 'members', rules=layout.rules)
  return -(-members // parts) * parts


def _divisors(n: int) -> list[int]:
  return [k for k in range(1, n + 1) if n % k == 0]
