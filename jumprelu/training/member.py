"""A member of a suite, and its names in files."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Member:
  """One SAE of a suite, with all fields in which members may differ."""

  site: str  # A key of `lm.SITES`.
  layer: int
  width: int
  variant: str
  sparsity_coefficient: float
  target_l0: float  # 0 for a member without a target.
  seed: int  # The seed of the initialisation only.
  learning_rate: float
  initial_threshold: float


def group_name(member: Member, *, of_layers: bool) -> str:
  """Returns the name of the group of a member.

  Args:
    member: The member.
    of_layers: Whether the suite has several layers, which are then named.
  """
  return (layer_prefix(member) if of_layers else '') + shape_name(member)


def layer_prefix(member: Member) -> str:
  """Returns the start of names in a suite of several layers."""
  return f'layer_{member.layer}-'


def shape_name(member: Member) -> str:
  """Returns the name of a member's shape, which does not name the layer."""
  return f'{member.site}-{member.width}-{member.variant}'


def member_name(member: Member) -> str:
  """Returns a member's name in a suite of one layer.

  For example 'resid_post-512-jumprelu-lambda_0.001-seed_0', or with 'l0_20' for
  a target L0. Besides a target, a coefficient of 1 is left out.
  """
  parts = [shape_name(member)]
  if not member.target_l0 or member.sparsity_coefficient != 1:
    parts.append(f'lambda_{_exact(member.sparsity_coefficient)}')
  if member.target_l0:
    parts.append(f'l0_{_exact(member.target_l0)}')
  return '-'.join([*parts, f'seed_{member.seed}'])


def _exact(value: float) -> str:
  """Returns the shorter text, unless it differs from the value."""
  text = f'{value:g}'
  return text if float(text) == value else repr(value)
