"""A suite: members, the groups they are stacked in, and their state.

A group's members share input, target, width, variant and static config; what
differs between them is one array a hyper-parameter. Its leading `members` axis
is padded to what the mesh needs. Padding trains along as a copy of the last
member and is seen nowhere: not in metrics, not in checkpoints.
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
from jumprelu.array_typing import Array
from jumprelu.training import optim

# Logical axes of the parameters that do not end in the latents. Of the others a
# matrix reads the model.
_PARAM_AXES = {
    'W_dec': ('latents', 'model'),
    'b_dec': ('model',),
}

# An array; in trees of shapes and of shardings whatever stands for it.
Leaf = Any


@dataclasses.dataclass(frozen=True)
class Member:
  """One SAE of a suite, and all that tells it from the others."""

  site: str  # A key of `SITES`.
  width: int
  variant: str
  sparsity_coefficient: float
  target_l0: float  # 0 where the sparsity coefficient rules.
  seed: int  # Of its initialisation only.
  learning_rate: float
  initial_threshold: float


@dataclasses.dataclass(frozen=True)
class Group:
  """Members of one shape, trained by one vmapped step."""

  name: str
  input_site: lm.Site
  target_site: lm.Site
  sae: saes.base.Sae
  members: tuple[Member, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GroupState:
  """What training changes; every leaf has a leading `members` axis."""

  params: dict[str, Leaf]
  # Adam's second moment.
  nu: dict[str, Leaf]
  # [members, latents]: kept rows since the latent last fired, saturating.
  silent: Leaf
  # [members]: steps that were not taken because something was not finite.
  skipped: Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """The state of a whole suite."""

  groups: dict[str, GroupState]
  # []: steps done.
  step: Leaf


def make_groups(
    members: Iterable[Member],
    *,
    configs: Mapping[str, Any],
    d_site: Callable[[lm.Site], int],
) -> tuple[Group, ...]:
  """Stacks members of one shape, in order of appearance.

  `configs` holds each variant's own config, `d_site` tells an activation's
  width at a site.
  """
  stacks: dict[tuple[str, int, str], list[Member]] = {}
  for member in members:
    key = member.site, member.width, member.variant
    if member in stacks.setdefault(key, []):
      raise errors.UserError(f'the suite holds a member twice: {member}')
    stacks[key].append(member)
  groups = []
  for (site, width, variant), stack in stacks.items():
    source, target = lm.SITES[site]
    sae = saes.make_sae(
        variant,
        configs[variant],
        d_in=d_site(source),
        d_out=d_site(target),
        width=width,
        transcoder=source != target,
    )
    name = f'{site}-{width}-{variant}'
    groups.append(Group(name, source, target, sae, tuple(stack)))
  return tuple(groups)


def taps(groups: Sequence[Group]) -> tuple[lm.Site, ...]:
  """The sites that the groups read or reconstruct, sorted."""
  return tuple(
      sorted({site for g in groups for site in (g.input_site, g.target_site)})
  )


def layout_of(group: Group, mesh: Any) -> sharding.Layout:
  """How the group lies on the mesh."""
  return sharding.choose_layout(mesh, len(group.members), group.sae.width)


def slots(group: Group, mesh: Any) -> int:
  """Members of the group and its padding."""
  return sharding.pad_members(mesh, layout_of(group, mesh), len(group.members))


def hyper_parameters(group: Group, count: int) -> dict[str, Any]:
  """The numbers that differ between members, padded to `count`."""
  members = group.members + group.members[-1:] * (count - len(group.members))

  def column(name):
    return np.asarray([getattr(m, name) for m in members], np.float32)

  # Without a target the target is not read; 1 keeps it harmless.
  target = column('target_l0')
  return {
      'sparsity_coefficient': column('sparsity_coefficient'),
      'target_l0': np.where(target > 0, target, np.float32(1)),
      'learning_rate': column('learning_rate'),
  }


def init_state(groups: Sequence[Group], *, mesh: Any = None) -> TrainState:
  """Initialises every group, jitted straight into its shardings.

  A member's initialisation depends on its own seed and shape and never on its
  place in the suite.
  """
  places = state_shardings(groups, mesh=mesh)
  states = {}
  for group in groups:
    # Groups of equal shapes share a compiled program.
    place = places.groups[group.name] if places is not None else None
    init = jax.jit(_init_group, static_argnums=0, out_shardings=place)
    starts = _starts(group, slots(group, mesh))
    states[group.name] = init(group.sae, *starts)
  place = places.step if places is not None else None
  return TrainState(groups=states, step=jax.device_put(np.int32(0), place))


def state_shardings(groups: Sequence[Group], *, mesh: Any) -> Any:
  """The shardings of the padded state; None without a mesh."""
  if mesh is None:
    return None
  rules = {group.name: layout_of(group, mesh).rules for group in groups}
  return _shardings(_abstract(groups, mesh), rules, mesh)


def stored_state(groups: Sequence[Group], *, mesh: Any = None) -> TrainState:
  """The abstract state of a checkpoint: no padding, whatever the layout.

  Where members do not divide among the devices, the latents do.
  """
  return jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      _abstract(groups),
      _stored_shardings(groups, mesh),
  )


def strip_padding(
    state: TrainState, groups: Sequence[Group], *, mesh: Any = None
) -> TrainState:
  """The state as it is stored; `state` itself where nothing is padded."""
  counts = tuple((group.name, len(group.members)) for group in groups)
  if counts == tuple((group.name, slots(group, mesh)) for group in groups):
    return state
  cut = jax.jit(
      _resize, static_argnums=1, out_shardings=_stored_shardings(groups, mesh)
  )
  return cut(state, counts)


def add_padding(
    state: TrainState, groups: Sequence[Group], *, mesh: Any = None
) -> TrainState:
  """The state as it trains, from the state as it is stored."""
  counts = tuple((group.name, slots(group, mesh)) for group in groups)
  places = state_shardings(groups, mesh=mesh)
  pad = jax.jit(_resize, static_argnums=1, out_shardings=places)
  return pad(state, counts)


def _resize(state: TrainState, counts: tuple[tuple[str, int], ...]):
  """Cuts off members, or repeats the last one."""

  def resize(x, count):
    return jnp.concatenate([x[:count], *[x[-1:]] * (count - len(x))])

  groups = {
      name: jax.tree.map(lambda x, n=count: resize(x, n), state.groups[name])
      for name, count in counts
  }
  return dataclasses.replace(state, groups=groups)


def _abstract(groups: Sequence[Group], mesh: Any = None) -> TrainState:
  """The state's shapes, with the padding that the mesh needs."""
  states = {}
  for group in groups:
    init = functools.partial(_init_group, group.sae)
    states[group.name] = jax.eval_shape(
        init, *_starts(group, slots(group, mesh))
    )
  return TrainState(groups=states, step=jax.ShapeDtypeStruct((), jnp.int32))


def _starts(group: Group, count: int) -> tuple[np.ndarray, ...]:
  """What an initialisation starts from: key words, thresholds, target L0s.

  A key is the member's seed and a digest of its shape; Threefry, which all
  keys are for, is a good hash of both.
  """
  members = group.members + group.members[-1:] * (count - len(group.members))
  shape = zlib.crc32(group.name.encode())
  keys = np.asarray([(m.seed, shape) for m in members], np.uint32)
  numbers = [(m.initial_threshold, m.target_l0) for m in members]
  return keys, *np.asarray(numbers, np.float32).T


def _init_group(sae: saes.base.Sae, keys: Array, *numbers: Array):
  """Initialises members from what `_starts` gives."""

  def init(key, threshold, target):
    key = jax.random.wrap_key_data(key, impl='threefry2x32')
    return sae.init_params(key, initial_threshold=threshold, target_l0=target)

  params = jax.vmap(init)(*map(jnp.asarray, (keys, *numbers)))
  return GroupState(
      params=params,
      nu=optim.init_nu(params),
      silent=jnp.zeros((len(keys), sae.width), jnp.int32),
      skipped=jnp.zeros(len(keys), jnp.int32),
  )


def _stored_shardings(groups: Sequence[Group], mesh: Any) -> Any:
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
  return _shardings(abstract, rules, mesh)


def _shardings(
    abstract: TrainState, rules: Mapping[str, sharding.Rules], mesh: Any
) -> TrainState:
  """A tree of shardings from the groups' own rows of the sharding table."""

  def place(path, leaf):
    names = [str(getattr(k, 'key', getattr(k, 'name', k))) for k in path]
    if names[0] != 'groups':
      return sharding.replicated(mesh)
    others = ('model', 'latents')[3 - leaf.ndim :]
    axes = _PARAM_AXES.get(names[-1], others)
    return sharding.named(
        mesh, 'members', *axes, rules=rules[names[1]], shape=leaf.shape
    )

  return jax.tree_util.tree_map_with_path(place, abstract)
