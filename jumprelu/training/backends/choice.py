"""The choice of the backend that computes the steps of a group."""

import jax

from jumprelu import errors, sharding
from jumprelu.ops import native
from jumprelu.training import suite
from jumprelu.training.backends import plain_jumprelu

AUTO = 'auto'

# The widths from which the sparse backend is faster than the dense one on a
# CPU, and the Pallas kernels are faster on a GPU, at every matmul precision.
_WIDE = 4096
_WIDE_ON_GPU = 65_536


def choose(
    name: str, group: suite.Group, mesh: jax.sharding.Mesh | None
) -> str:
  """Returns the name of a group's backend: `name`, or the fastest if `AUTO`.

  A group whose SAE is not a plain JumpReLU gets the oracle for every name.
  `AUTO` is the native step on one CPU. Without it wide SAEs get the sparse
  backend there. On a GPU very wide SAEs get the Pallas kernels, which fall back
  to the dense step when a row has too many selected latents. All other groups
  get the dense backend.

  Raises:
    UserError: this machine or mesh does not support the backend.
  """
  if not plain_jumprelu.is_plain(group.sae):
    return 'oracle'
  obstacles = _obstacles(mesh)
  if name == AUTO:
    return _fastest(group, mesh, obstacles)
  if reason := obstacles.get(name):
    raise errors.UserError(f'backend={name}: {reason}; use --backend=auto')
  return name


def dense_in_place(mesh: jax.sharding.Mesh | None) -> bool:
  """Returns whether the dense backend should update matrices in place.

  On one CPU an update in place needs half of the memory, and the matrices stay
  in the cache during the update.
  """
  return sharding.platform(mesh) == 'cpu' and sharding.is_single_device(mesh)


def _fastest(
    group: suite.Group,
    mesh: jax.sharding.Mesh | None,
    obstacles: dict[str, str],
) -> str:
  """Returns the name of the fastest backend that has no obstacle."""
  if not obstacles['native']:
    return 'native'
  if not obstacles['pallas'] and group.sae.width >= _WIDE_ON_GPU:
    return 'pallas'
  wide = group.sae.width >= _WIDE and sharding.platform(mesh) == 'cpu'
  return 'sparse' if wide and not obstacles['sparse'] else 'dense'


def _obstacles(mesh: jax.sharding.Mesh | None) -> dict[str, str]:
  """Returns {backend: why it cannot be used}; '' for a usable backend."""
  several = ''
  if mesh is not None and not sharding.is_single_device(mesh):
    several = f'it is for one device, not for {mesh.size}'
  platform = sharding.platform(mesh)
  no_cpu = '' if platform == 'cpu' else f'it is for CPUs, this is a {platform}'
  no_gpu = '' if platform == 'gpu' else f'it is for GPUs, this is a {platform}'
  return {
      'sparse': several,
      'native': several or no_cpu or native.why_not(),
      'pallas': several or no_gpu,
  }
