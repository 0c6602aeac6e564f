"""A suite: its members (SAEs), their groups, and their trained state.

A group stacks members with the same inputs, targets, width, variant and static
config. Parameters, second moments, and hyper-parameters that differ between
members are arrays with a leading `members` axis. The axis is padded to a
multiple of the mesh axes over which it is sharded. Padding members are trained
as copies of the last member, but are left out of metrics and checkpoints.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm, saes, sharding
from jumprelu.activations import scales as scales_lib
from jumprelu.array_typing import Array
from jumprelu.saes import centers
from jumprelu.training import optim
from jumprelu.training.member import (
    Member,
    group_name,
    layer_prefix,
    member_name,
    shape_name,
)

# Steps are counted in int32 (`TrainState.step`).
MAX_STEPS = 2**31 - 1

# An array, or a ShapeDtypeStruct or Sharding in a tree of shapes or shardings.
Leaf = Any


@dataclasses.dataclass(frozen=True)
class Group:
  """Members of the same shape, which are stacked and share their batches."""

  name: str
  reads: lm.Reads
  # The width of the activations at each tap.
  widths: Mapping[lm.Tap, int] = dataclasses.field(hash=False)
  sae: saes.base.Sae
  members: tuple[Member, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GroupState:
  """The trained state of a group; every leaf has a leading `members` axis."""

  params: dict[str, Leaf]
  # Adam's second moment.
  nu: dict[str, Leaf]
  # [members, latents]: the number of kept rows since the latent last fired,
  # which saturates.
  silent: Leaf
  # [members]: the number of steps that were skipped because loss or gradients
  # were not finite.
  skipped: Leaf
  # [members]: how often the last steps were skipped. A member is frozen, and
  # skips all further steps, from a limit on (`backends.is_frozen`).
  failing: Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """The state of a whole suite."""

  groups: dict[str, GroupState]
  # []: the number of steps taken.
  step: Leaf


def make_groups(
    members: Iterable[Member],
    *,
    configs: Mapping[str, saes.base.Config],
    d_site: Callable[[lm.Site], int],
    input_gain: bool = True,
    affine_skip: bool = False,
) -> tuple[Group, ...]:
  """Returns the groups of a suite; a group has all members of one shape.

  Groups, and members in each group, are in the order of `members`.

  Args:
    members: The members of the suite.
    configs: The config of each variant.
    d_site: Returns the width of the activations at a site.
    input_gain: Passed to `lm.make_reads`.
    affine_skip: Whether transcoders have a skip term.

  Raises:
    UserError: a member is repeated.
  """
  stacks: dict[tuple[str, int, int, str], list[Member]] = {}
  for member in members:
    key = member.site, member.layer, member.width, member.variant
    if member in stacks.setdefault(key, []):
      raise errors.UserError(f'the suite holds a member twice: {member}')
    stacks[key].append(member)
  several = len({layer for _, layer, *_ in stacks}) > 1
  groups = []
  for (site, layer, _, variant), stack in stacks.items():
    reads = lm.make_reads(site, layer, input_gain=input_gain)
    name = group_name(stack[0], of_layers=several)
    groups.append(
        make_group(
            name,
            reads,
            stack,
            config=configs[variant],
            d_site=d_site,
            affine_skip=affine_skip,
        )
    )
  return tuple(groups)


def make_group(
    name: str,
    reads: lm.Reads,
    members: Sequence[Member],
    *,
    config: saes.base.Config,
    d_site: Callable[[lm.Site], int],
    affine_skip: bool = False,
) -> Group:
  """Returns the group of members with the same shape.

  Args:
    name: The name of the group.
    reads: The taps that the members read and reconstruct.
    members: The members, which share site, layer, width and variant.
    config: The config of the variant.
    d_site: Returns the width of the activations at a site.
    affine_skip: Whether transcoders have a skip term.
  """
  widths = {tap: d_site(tap.site) for tap in reads.taps}
  sae = saes.make_sae(
      members[0].variant,
      config,
      d_in=sum(widths[tap] for tap in reads.inputs),
      d_out=sum(widths[tap] for tap in reads.targets),
      width=members[0].width,
      transcoder=reads.is_transcoder,
      skip=affine_skip and reads.is_transcoder,
  )
  return Group(name, reads, widths, sae, tuple(members))


def names(group: Group) -> list[str]:
  """Returns the members' names in files of metrics.

  They start with the layer if the group's name does: in suites of several.
  """
  first = group.members[0]
  of_layers = group.name == group_name(first, of_layers=True)
  prefix = layer_prefix(first) if of_layers else ''
  return [prefix + member_name(member) for member in group.members]


def taps(groups: Sequence[Group]) -> tuple[lm.Tap, ...]:
  """Returns the sorted taps that the groups read or reconstruct."""
  return lm.all_taps(group.reads for group in groups)


def layout_of(
    group: Group, mesh: jax.sharding.Mesh | sharding.MeshShape | None
) -> sharding.Layout:
  """Returns the layout of a group on a mesh.

  Raises:
    UserError: the mesh does not divide the width of the group.
  """
  return sharding.choose_layout(mesh, len(group.members), group.sae.width)


def slots(
    group: Group, mesh: jax.sharding.Mesh | sharding.MeshShape | None
) -> int:
  """Returns the number of members of the group, including padding."""
  return sharding.pad_members(mesh, layout_of(group, mesh), len(group.members))


def hyper_parameters(group: Group, count: int) -> dict[str, np.ndarray]:
  """Returns the hyper-parameters by name, padded to `count` members."""
  members = group.members + group.members[-1:] * (count - len(group.members))

  def column(name):
    return np.asarray([getattr(m, name) for m in members], np.float32)

  # Members without a target ignore this value. 1 avoids a division by zero.
  target = column('target_l0')
  return {
      'sparsity_coefficient': column('sparsity_coefficient'),
      'target_l0': np.where(target > 0, target, np.float32(1)),
      'learning_rate': column('learning_rate'),
  }


def init_state(
    groups: Sequence[Group],
    scales: scales_lib.Scales | None = None,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> TrainState:
  """Returns the initial state with padding, in `state_shardings`.

  The initial state of a member depends on its own fields and its taps' scales
  only, and not on its position in the suite.

  Args:
    groups: The groups of the suite.
    scales: The scales of the taps. If they have centers, biases start there.
    mesh: The devices; None for one device.
  """
  places = state_shardings(groups, mesh=mesh)
  states = {}
  for group in groups:
    place = places.groups[group.name] if places is not None else None
    # The SAE is a static argument, so groups with equal SAEs share a program.
    init = jax.jit(_init_group, static_argnums=0, out_shardings=place)
    inputs = _init_inputs(group, slots(group, mesh))
    starts = scales.starts(group.reads) if scales is not None else ()
    states[group.name] = init(group.sae, *inputs, *starts)
  place = places.step if places is not None else None
  return TrainState(groups=states, step=jax.device_put(np.int32(0), place))


def state_shardings(
    groups: Sequence[Group], *, mesh: jax.sharding.Mesh | None
) -> TrainState | None:
  """Returns the shardings of the state with padding, or None without a mesh."""
  if mesh is None:
    return None
  rules = {group.name: layout_of(group, mesh).rules for group in groups}
  return _shardings(_abstract(groups, mesh), groups, rules=rules, mesh=mesh)


def stored_state(
    groups: Sequence[Group], *, mesh: jax.sharding.Mesh | None = None
) -> TrainState:
  """Returns the shapes and shardings of the state in a checkpoint.

  The state has no padding. A group that is padded during training is stored
  with sharded latents, because its number of members cannot be sharded.
  """
  return jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      _abstract(groups),
      stored_shardings(groups, mesh),
  )


def _abstract(
    groups: Sequence[Group], mesh: jax.sharding.Mesh | None = None
) -> TrainState:
  """Returns the shapes of the state with the padding of the mesh."""
  states = {}
  for group in groups:
    init = functools.partial(_init_group, group.sae)
    inputs = _init_inputs(group, slots(group, mesh))
    states[group.name] = jax.eval_shape(init, *inputs)
  return TrainState(groups=states, step=jax.ShapeDtypeStruct((), jnp.int32))


def _init_inputs(group: Group, count: int) -> tuple[np.ndarray, ...]:
  """Returns the keys, initial thresholds and target L0s of `count` members.

  A key has two words, the member's seed and a digest of its shape. They need no
  further mixing, because Threefry hashes them.
  """
  members = group.members + group.members[-1:] * (count - len(group.members))
  shape = zlib.crc32(shape_name(members[0]).encode())
  keys = np.asarray([(m.seed, shape) for m in members], np.uint32)
  numbers = [(m.initial_threshold, m.target_l0) for m in members]
  return keys, *np.asarray(numbers, np.float32).T


def _init_group(
    sae: saes.base.Sae,
    keys: Array,
    thresholds: Array,
    targets: Array,
    *starts: Array,
) -> GroupState:
  """Returns the initial state of members.

  The arrays are those of `_init_inputs`, and of `Scales.starts` if biases start
  at the means of activations.
  """

  def init(key, threshold, target):
    key = jax.random.wrap_key_data(key, impl='threefry2x32')
    params = sae.init_params(key, initial_threshold=threshold, target_l0=target)
    if starts:
      means = dict(zip(('inputs', 'targets'), starts, strict=True))
      params = centers.start_at(sae, params, **means)
    return params

  params = jax.vmap(init)(*map(jnp.asarray, (keys, thresholds, targets)))
  return GroupState(
      params=params,
      nu=optim.init_nu(params),
      silent=jnp.zeros((len(keys), sae.width), jnp.int32),
      skipped=jnp.zeros(len(keys), jnp.int32),
      failing=jnp.zeros(len(keys), jnp.int32),
  )


def stored_shardings(
    groups: Sequence[Group], mesh: jax.sharding.Mesh | None
) -> TrainState:
  """Returns the shardings of a checkpoint's state, which has no padding."""
  abstract = _abstract(groups)
  if mesh is None:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda _: place, abstract)
  rules = {}
  for group in groups:
    layout = layout_of(group, mesh)
    padded = slots(group, mesh) != len(group.members)
    rules[group.name] = (
        {'latents': ('data', 'tensor')} if padded else layout.rules
    )
  return _shardings(abstract, groups, rules=rules, mesh=mesh)


def _shardings(
    abstract: TrainState,
    groups: Sequence[Group],
    *,
    rules: Mapping[str, sharding.Rules],
    mesh: jax.sharding.Mesh,
) -> TrainState:
  """Returns the shardings of a state.

  Args:
    abstract: The shapes of the state.
    groups: The groups of the suite.
    rules: {group: the mesh axes of each logical axis}.
    mesh: The devices.
  """
  param_axes = {group.name: group.sae.param_axes() for group in groups}

  def place(path, leaf):
    names = [str(getattr(k, 'key', getattr(k, 'name', k))) for k in path]
    if names[0] != 'groups':
      return sharding.replicated(mesh)
    # The counters are no parameters: `silent` has the axes [members, latents],
    # and the others have [members].
    axes = param_axes[names[1]].get(names[-1], ('latents',)[2 - leaf.ndim :])
    return sharding.named(
        mesh, 'members', *axes, rules=rules[names[1]], shape=leaf.shape
    )

  return jax.tree_util.tree_map_with_path(place, abstract)
