"""Sharding: the table from logical axes to mesh axes, and groups' layouts.

The mesh has two axes, `data` and `tensor`. Other modules name logical axes
only; this is the only file that names a PartitionSpec.

The layout of a suite's group is the first of these rows that fits a mesh of
`data` x `tensor` devices (`lm_rules` has the language model's weights):

  group                                layout           collectives of a step
  one device                           single           none
  members fill half of the devices,    members          the batch is gathered
    each whole on one
  members fill half of `data`, each    members_latents  the batch is gathered,
    sharded over `tensor`                                 reconstructions are
                                                          summed over `tensor`
  few or very wide, each sharded       latents_all      the batch is gathered,
    over all devices                                      reconstructions are
                                                          summed over all
  few and narrow                       latents          gradients are summed
                                                          over `data`

A member's gradients have 8 x model x latents bytes and its reconstructions 4 x
batch x model. With 16,384 latents, 2,304 dimensions and a batch of 4,096 these
are 302 MB and 38 MB, so gradients are summed over the mesh only for narrow
dictionaries. Padding members are at most half of the slots.
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

# The language model's rules if its weights sharded over `tensor` are too large
# for a device. The model axis of every matrix is then sharded over `data` as
# well, and gathered layer by layer. Constraints in `lm.gemma` keep the sharding
# of activations, because XLA would otherwise shard their model axis, and every
# norm would need a collective.
FSDP_RULES: Rules = {**RULES, 'model': ('data',)}

# The bytes of weights per device above which FSDP_RULES apply. The smallest
# chips have 16 GB for weights, a block and the suite.
MAX_WEIGHT_BYTES = 6 * 2**30

# The number of a member's latents that is too large for one device: at 3,584
# dimensions, parameters, second moment and gradient need 11 GB.
WIDE = 2**17

# The width from which a member's gradients are larger than its reconstructions
# of a batch of thousands.
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
  """The layout of a group on the mesh: a name and its rows of the table."""

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
        # Every device holds whole members; the batch is gathered.
        Layout('members', members=('data', 'tensor')),
        # A member is split over `tensor`; the batch is gathered.
        Layout('members_latents', members=('data',), latents=('tensor',)),
        # A member is split over all devices; the batch is gathered.
        Layout('latents_all', latents=('data', 'tensor')),
        # Few members: gradients are summed over `data`.
        Layout('latents', latents=('tensor',), batch=('data',)),
    )
}


def make_mesh(config: Config, devices: Sequence[Any] | None = None) -> Mesh:
  """Returns the mesh over `devices`, by default over all devices."""
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

  With `shape`, an axis that its mesh axes do not divide is replicated, such as
  key and value heads on a larger number of devices.
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
  """Returns the sharding of one member from that of its group's members."""
  return NamedSharding(place.mesh, PartitionSpec(*place.spec[1:]))


def is_single_device(mesh: Mesh | MeshShape | None) -> bool:
  """Returns whether there is a single device."""
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

  A mesh axis of size 1 costs nothing in any layout.
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
  """Returns the rules of the language model's weights, with FSDP if needed."""
  if mesh is None or weight_bytes <= MAX_WEIGHT_BYTES * mesh.shape['tensor']:
    return RULES
  return FSDP_RULES


def platform(mesh: Mesh | None) -> str:
  """Returns the platform of the mesh, which may be a remote topology's."""
  return (
      jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
  )


def pad_members(
    mesh: Mesh | MeshShape | None, layout: Layout, members: int
) -> int:
  """Returns `members` rounded up to a multiple of the layout's mesh axes."""
  if mesh is None:
    return members
  parts = axis_size(mesh, 'members', rules=layout.rules)
  return -(-members // parts) * parts


def _divisors(n: int) -> list[int]:
  return [k for k in range(1, n + 1) if n % k == 0]
