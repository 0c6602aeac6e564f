"""Ways to take one step of one SAE; all of them take the same one.

  oracle  automatic differentiation; any variant, any device
  dense   the written-out gradient; any device and layout
  sparse  only pairs with a gradient, in JAX; one device
  native  the same in C++; one CPU
  pallas  the same in Pallas; one GPU

All but the oracle are a JumpReLU's, with the paper's kernel.
"""

from typing import Any

from jumprelu import errors, sharding
from jumprelu.ops import native
from jumprelu.training import suite
from jumprelu.training.backends import full_gradient, in_place_update, protocol
from jumprelu.training.backends.protocol import DEAD_AFTER, Path, Shared

__all__ = ['AUTO', 'DEAD_AFTER', 'PATHS', 'Path', 'Shared', 'choose', 'find']

PATHS: dict[str, Path] = {
    'oracle': full_gradient.ORACLE,
    'dense': full_gradient.DENSE,
    'sparse': in_place_update.SPARSE,
    'native': in_place_update.NATIVE,
    'pallas': in_place_update.PALLAS,
}
AUTO = 'auto'

# From here on the sparse path is faster than the dense one on a CPU, and the
# kernels on a GPU in any precision of the products.
_WIDE = 4096
_WIDE_ON_GPU = 65_536


def choose(asked: str, group: suite.Group, mesh: Any) -> str:
  """Name the path of a group: the fastest, or what was asked for.

  Groups for which only the oracle is right take it whatever was asked for. On a
  CPU without the native step wide SAEs take the sparse one, on a GPU the
  kernels, which go by the L0 of each step: where rows are too long they are the
  dense one.

  Raises:
    UserError: if the path that was asked for cannot be had here.
  """
  if not protocol.is_plain(group.sae):
    return 'oracle'
  why_not = _why_not(mesh)
  if asked == AUTO:
    return _fastest(group, mesh, why_not)
  if reason := why_not.get(asked):
    raise errors.UserError(f'path={asked}: {reason}; use --path=auto')
  return asked


def _fastest(group: suite.Group, mesh: Any, why_not: dict[str, str]) -> str:
  if not why_not['native']:
    return 'native'
  if not why_not['pallas'] and group.sae.width >= _WIDE_ON_GPU:
    return 'pallas'
  wide = group.sae.width >= _WIDE and sharding.platform(mesh) == 'cpu'
  return 'sparse' if wide and not why_not['sparse'] else 'dense'


def _why_not(mesh: Any) -> dict[str, str]:
  """Say what stands against the paths that need something; empty if nothing."""
  alone = ''
  if not sharding.is_alone(mesh):
    alone = f'it is for one device, not for {mesh.size}'
  platform = sharding.platform(mesh)
  no_cpu = '' if platform == 'cpu' else f'it is for CPUs, this is a {platform}'
  no_gpu = '' if platform == 'gpu' else f'it is for GPUs, this is a {platform}'
  return {
      'sparse': alone,
      'native': alone or no_cpu or native.why_not(),
      'pallas': alone or no_gpu,
  }


def find(asked: str, group: suite.Group, mesh: Any) -> Path:
  """Give the path of a group, by `choose`."""
  name = choose(asked, group, mesh)
  cpu = sharding.platform(mesh) == 'cpu'
  if name == 'dense' and cpu and sharding.is_alone(mesh):
    # Half of the memory, and matrices stay in the cache while they are updated.
    return in_place_update.DENSE
  return PATHS[name]
