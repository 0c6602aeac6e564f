"""Where arrays lie on the devices: the one table from logical to mesh axes.

The mesh has two axes, `data` and `tensor`. Modules name logical axes only;
this is the only file that names a PartitionSpec.

Which layout a suite's group gets, by the first row that fits, on a mesh of
`data` x `tensor` devices (the language model's weights: `lm_rules`):

  group                                layout           collectives of a step
  one device                           single           none
  members fill half of the devices,    members          the batch is gathered
    each whole on one
  members fill half of `data`, each    members_latents  and reconstructions are
    cut over `tensor`                                     summed over `tensor`
  few or very wide, every member cut   latents_all      and reconstructions are
    over all devices                                      summed over all
  few and narrow                       latents          gradients are summed
                                                          over `data`

Why: gradients of a member are 8 x model x latents bytes, its reconstruction 4 x
batch x model. A member of 16,384 latents has 302 MB of one at 2,304
dimensions and 38 MB of the other at a batch of 4,096, so gradients cross the
mesh only where dictionaries are narrow. Padding costs at most half of the work.
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

# The language model's rules where a device cannot hold its share of weights:
# the model axis of every matrix over `data` as well, gathered layer by layer.
# Activations stay where they are, by constraints (`lm.gemma`), or XLA would
# spread their model axis instead and every norm would cost a collective.
FSDP_RULES: Rules = {**RULES, 'model': ('data',)}

# Bytes of weights that a device holds at most where there is a choice; the
# smallest chips have 16 GB, for weights, a block and the suite.
MAX_WEIGHT_BYTES = 6 * 2**30

# So many latents of one member are too many for a device: at 3,584 dimensions
# parameters, second moment and gradient take 11 GB.
WIDE = 2**17

# From here on the gradients of a member outweigh its reconstructions of a batch
# of thousands.
NARROW = 2**12


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
class MeshShape:
  """A mesh without devices: enough to choose layouts by."""

  data: int
  tensor: int

  @property
  def shape(self) -> dict[str, int]:
    """Devices along each axis."""
    return {'data': self.data, 'tensor': self.tensor}

  @property
  def size(self) -> int:
    """Devices in all."""
    return self.data * self.tensor


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
        # A member is split over all devices; the batch is gathered.
        Layout('latents_all', latents=('data', 'tensor')),
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


def of_one(place: NamedSharding) -> NamedSharding:
  """How one member lies, from how the members of a group lie together."""
  return NamedSharding(place.mesh, PartitionSpec(*place.spec[1:]))


def is_alone(mesh: Mesh | MeshShape | None) -> bool:
  """Whether there is one device: nothing to lay out."""
  return mesh is None or mesh.size == 1


def constrain(
    x: jax.Array,
    mesh: Mesh | None,
    *logical: str | None,
    rules: Rules = RULES,
) -> jax.Array:
  """Pins the layout of `x` inside jit; a no-op without a mesh to speak of."""
  if mesh is None or is_alone(mesh):
    return x
  sharding = named(mesh, *logical, rules=rules, shape=x.shape)
  return jax.lax.with_sharding_constraint(x, sharding)


def axis_size(
    mesh: Mesh | MeshShape, name: str | None, *, rules: Rules = RULES
) -> int:
  """Number of parts into which the logical axis is cut."""
  axes = rules.get(name, ()) if name is not None else ()
  return math.prod(mesh.shape[axis] for axis in axes)


def choose_layout(
    mesh: Mesh | MeshShape | None, members: int, width: int
) -> Layout:
  """Picks a group's layout by the table at the top of this file.

  An axis of size 1 costs nothing in any of them.
  """
  if mesh is None or is_alone(mesh):
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
  """The rules of a language model's weights: by `tensor`, or by FSDP too."""
  if mesh is None or weight_bytes <= MAX_WEIGHT_BYTES * mesh.shape['tensor']:
    return RULES
  return FSDP_RULES


def platform(mesh: Any) -> str:
  """What a program for the mesh runs on, which need not be in this machine."""
  return (
      jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
  )


def pad_members(
    mesh: Mesh | MeshShape | None, layout: Layout, members: int
) -> int:
  """Rounds `members` up to what the layout's mesh axes divide."""
  if mesh is None:
    return members
  parts = axis_size(mesh, 'members', rules=layout.rules)
  return -(-members // parts) * parts


def _divisors(n: int) -> list[int]:
  return [k for k in range(1, n + 1) if n % k == 0]
