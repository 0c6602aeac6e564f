"""The choice of the backend that computes the steps of a group."""

import jax

from jumprelu import errors, sharding
from jumprelu.ops import native
from jumprelu.training import suite
from jumprelu.training.backends import plain

AUTO = 'auto'

# From this width on, the sparse backend is faster than the dense one on a CPU.
_WIDE = 4096
# From this width on, the Pallas kernels are faster than the dense backend on a
# GPU at every matmul precision.
_WIDE_ON_GPU = 65_536


def choose(
    name: str, group: suite.Group, mesh: jax.sharding.Mesh | None
) -> str:
  """Returns the name of a group's backend: `name`, or the fastest if `AUTO`.

  `AUTO` chooses the first of these that applies:

    native  on one CPU, if the native library was built
    pallas  on one GPU, for very wide SAEs
    sparse  on one CPU, for wide SAEs
    dense   otherwise

  TopK and BatchTopK SAEs use only `sparse` and `native`. The result is the
  backend `oracle` for other backends of these SAEs, because `oracle` needs as
  many matrix products as `dense`, and for all SAEs that are neither these nor
  plain JumpReLUs (`plain.has_pairs`).

  Raises:
    UserError: this machine or mesh does not support the backend.
  """
  if not plain.has_pairs(group.sae):
    return 'oracle'
  obstacles = _obstacles(mesh)
  if name == AUTO:
    name = _fastest(group, mesh, obstacles)
  elif reason := obstacles.get(name):
    raise errors.UserError(f'backend={name}: {reason}; use --backend=auto')
  usable = plain.is_plain(group.sae) or name in ('sparse', 'native')
  return name if usable else 'oracle'


def dense_in_place(mesh: jax.sharding.Mesh | None) -> bool:
  """Returns whether the dense backend should update matrices in place.

  This is the case on one CPU. The update then needs half of the memory, and
  each block of the matrices is still in the cache when it is updated.
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
