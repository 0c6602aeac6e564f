"""Sharding: the table from logical axes to mesh axes, and groups' layouts.

The mesh has two axes, `data` and `tensor`. Other modules name logical axes
only; this is the only file that names a PartitionSpec.

A group is a stack of SAEs of one shape, its members, which are trained
together. With M members of L latents each, on D = data x tensor devices, the
group has the first layout whose condition is met (`lm_rules` has the rules of
the language model's weights):

  layout           condition                     sharded over the mesh axes
  single           D = 1                         nothing
  members          2 M >= D and L < WIDE         members over both
  members_latents  2 M >= data and M > 1 and     members over `data`, latents
                   tensor > 1 and                over `tensor`
                   L / tensor < WIDE
  latents_all      L >= NARROW and D divides L   latents over both
  latents          none                          latents over `tensor`,
                                                 batch over `data`

The layout `latents` sums gradients over `data`. The other layouts gather the
batch instead, and those that shard latents sum reconstructions over the axes of
the latents.

A member's gradients have 8 x model x latents bytes and its reconstructions 4 x
batch x model. With 16,384 latents, 2,304 dimensions and a batch of 4,096 these
are 302 MB and 38 MB. Gradients are therefore summed over the mesh only if
members are narrow. The members of a group are padded to a multiple of the mesh
axes over which they are sharded, at most to twice their number.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jumprelu import errors

# {logical axis: mesh axes}. None and logical axes outside the table are
# replicated.
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

# The language model's rules if its weights, sharded over `tensor` only, are too
# large for a device. The model axis of every matrix is then also sharded over
# `data`, and gathered layer by layer. Constraints in `lm.gemma` keep the
# sharding of activations: XLA would otherwise shard their model axis, and every
# norm would need a collective.
FSDP_RULES: Rules = {**RULES, 'model': ('data',)}

# The bytes of weights per device above which FSDP_RULES apply. The smallest
# chips have 16 GB for weights, a block of activations and the suite.
MAX_WEIGHT_BYTES = 6 * 2**30

# The number of latents from which a member is too large for one device. At
# 3,584 dimensions, its parameters, second moments and gradients need 11 GB.
WIDE = 2**17

# The number of latents from which a member's gradients are larger than its
# reconstructions of a batch of up to 8,192 rows.
NARROW = 2**12


@dataclasses.dataclass(frozen=True)
class Config:
  """The sizes of the mesh axes; making a config needs no devices."""

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
class MeshShape:
  """The shape of a mesh without devices, which suffices to choose layouts."""

  data: int
  tensor: int

  @property
  def shape(self) -> dict[str, int]:
    """The number of devices along each axis."""
    return {'data': self.data, 'tensor': self.tensor}

  @property
  def size(self) -> int:
    """The number of devices."""
    return self.data * self.tensor


@dataclasses.dataclass(frozen=True)
class Layout:
  """The layout of a group: the mesh axes that shard its logical axes."""

  name: str
  members: tuple[str, ...] = ()
  latents: tuple[str, ...] = ()
  batch: tuple[str, ...] = ()

  @property
  def rules(self) -> Rules:
    """The rules of the axes that depend on the layout."""
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
        # Each device holds whole members; the batch is gathered.
        Layout('members', members=('data', 'tensor')),
        # Each member is sharded over `tensor`; the batch is gathered.
        Layout('members_latents', members=('data',), latents=('tensor',)),
        # Each member is sharded over all devices; the batch is gathered.
        Layout('latents_all', latents=('data', 'tensor')),
        # Each member is sharded over `tensor`, and the batch over `data`;
        # gradients are summed over `data`.
        Layout('latents', latents=('tensor',), batch=('data',)),
    )
}


def make_mesh(config: Config, devices: Sequence[Any] | None = None) -> Mesh:
  """Returns the mesh over `devices`, by default over all devices.

  Raises:
    UserError: The mesh does not use all of these devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  data = config.data or len(devices) // config.tensor
  if data * config.tensor != len(devices):
    raise errors.UserError(
        f'mesh.data={config.data} x mesh.tensor={config.tensor} does not use'
        f' the {len(devices)} devices; set mesh.data=0 and mesh.tensor to one'
        f' of {_divisors(len(devices))}'
    )
  return Mesh(
      np.asarray(devices).reshape(data, config.tensor),
      ('data', 'tensor'),
      axis_types=(AxisType.Auto,) * 2,
  )


def spec(*logical: str | None, rules: Rules = RULES) -> PartitionSpec:
  """Returns the PartitionSpec of logical axes.

  Raises:
    ValueError: Two logical axes use the same mesh axis.
  """
  used: dict[str, str | None] = {}
  entries = []
  for name in logical:
    axes = rules.get(name, ()) if name is not None else ()
    for axis in axes:
      if axis in used:
        raise ValueError(
            f'logical axes {used[axis]!r} and {name!r} of {logical} both use'
            f' mesh axis {axis!r}'
        )
      used[axis] = name
    entries.append(axes[0] if len(axes) == 1 else (axes or None))
  return PartitionSpec(*entries)


def named(
    mesh: Mesh,
    *logical: str | None,
    rules: Rules = RULES,
    shape: tuple[int, ...] | None = None,
) -> NamedSharding:
  """Returns the sharding of an array with these logical axes.

  With `shape`, an axis is replicated if its size is not divisible by the number
  of its shards. An example is 4 key and value heads on 8 devices.
  """
  if shape is not None:
    logical = tuple(
        name if size % axis_size(mesh, name, rules=rules) == 0 else None
        for name, size in zip(logical, shape, strict=True)
    )
  return NamedSharding(mesh, spec(*logical, rules=rules))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array that is replicated on every device."""
  return NamedSharding(mesh, PartitionSpec())


def member_sharding(place: NamedSharding) -> NamedSharding:
  """Returns the sharding of one member of a group.

  `place` is the sharding of the group's array, whose first axis is `members`.
  """
  return NamedSharding(place.mesh, PartitionSpec(*place.spec[1:]))


def is_single_device(mesh: Mesh | MeshShape | None) -> bool:
  """Returns whether the mesh has a single device; None means that it has."""
  return mesh is None or mesh.size == 1


def constrain(
    x: jax.Array,
    mesh: Mesh | None,
    *logical: str | None,
    rules: Rules = RULES,
) -> jax.Array:
  """Returns `x` with a sharding constraint; unchanged on a single device."""
  if mesh is None or is_single_device(mesh):
    return x
  sharding = named(mesh, *logical, rules=rules, shape=x.shape)
  return jax.lax.with_sharding_constraint(x, sharding)


def axis_size(
    mesh: Mesh | MeshShape, name: str | None, *, rules: Rules = RULES
) -> int:
  """Returns the number of shards of a logical axis."""
  axes = rules.get(name, ()) if name is not None else ()
  return math.prod(mesh.shape[axis] for axis in axes)


def choose_layout(
    mesh: Mesh | MeshShape | None, members: int, width: int
) -> Layout:
  """Returns a group's layout by the table at the top of this file.

  Args:
    mesh: The mesh; None means a single device.
    members: The number of members of the group.
    width: The number of latents of each member.

  Raises:
    UserError: Latents must be sharded over `tensor`, which does not divide
      their number.
  """
  if mesh is None or is_single_device(mesh):
    return LAYOUTS['single']
  tensor = mesh.shape['tensor']
  if width < WIDE and 2 * members >= mesh.size:
    return LAYOUTS['members']
  if width % tensor:
    raise errors.UserError(
        f'width {width} is not divisible by mesh.tensor={tensor}; nearest:'
        f' {width - width % tensor} or {width + tensor - width % tensor}'
    )
  split = tensor > 1 and width // tensor < WIDE
  if split and members > 1 and 2 * members >= mesh.shape['data']:
    return LAYOUTS['members_latents']
  if width >= NARROW and width % mesh.size == 0:
    return LAYOUTS['latents_all']
  return LAYOUTS['latents']


def lm_rules(mesh: Mesh | MeshShape | None, weight_bytes: int) -> Rules:
  """Returns the rules of the language model's weights.

  They are `FSDP_RULES` if sharding over `tensor` leaves more than
  `MAX_WEIGHT_BYTES` on a device, and else `RULES`.
  """
  if mesh is None or weight_bytes <= MAX_WEIGHT_BYTES * mesh.shape['tensor']:
    return RULES
  return FSDP_RULES


def platform(mesh: Mesh | None) -> str:
  """Returns the platform of the mesh's devices.

  The devices may be those of a TPU topology that this machine does not have.
  """
  return (
      jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
  )


def pad_members(
    mesh: Mesh | MeshShape | None, layout: Layout, members: int
) -> int:
  """Returns `members`, rounded up to a multiple of their number of shards."""
  if mesh is None:
    return members
  parts = axis_size(mesh, 'members', rules=layout.rules)
  return -(-members // parts) * parts


def _divisors(n: int) -> list[int]:
  return [k for k in range(1, n + 1) if n % k == 0]
