"""The memory that a run needs, compared with the machine's before it starts."""

import os
import pathlib

import jax

from jumprelu import errors, sharding
from jumprelu.planning import costs
from jumprelu.training import config as config_lib

# Runs above the limit by this factor are refused. The formula is an estimate,
# so that others are only warned of.
_REFUSED = 2.0
# Memory of a process besides arrays: libraries, compiled programs and text.
_PROCESS_BYTES = 2**30
_CGROUP_FILES = (
    '/sys/fs/cgroup/memory.max',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes',
)


def check(config: config_lib.TrainConfig) -> str:
  """Returns a warning if a run may need more memory than there is, or ''.

  The memory is that of `plan`'s formula, on the devices of this machine.

  Raises:
    UserError: the run needs more than twice the memory.
  """
  mesh = sharding.make_mesh(config.mesh)
  shape = sharding.MeshShape(mesh.shape['data'], mesh.shape['tensor'])
  needed = costs.memory(config, shape).total
  where, limit = 'a device', _device_bytes()
  if limit is None:
    # Devices of a CPU share the memory of the machine.
    needed = needed * jax.local_device_count() + _PROCESS_BYTES
    where, limit = 'this machine', host_bytes()
  if not limit or needed <= limit:
    return ''
  text = (
      f'the run needs about {needed / 2**30:,.1f} GiB of memory, but {where}'
      f' has {limit / 2**30:,.1f} GiB: choose fewer --widths or'
      ' --sparsity_coefficients, or a smaller --stream.block_positions'
      ' (`jumprelu plan` has the parts)'
  )
  if needed > _REFUSED * limit:
    raise errors.UserError(text)
  return f'warning: {text}'


def _device_bytes() -> int | None:
  """Returns the memory of an accelerator, None on CPU."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    return None
  return (device.memory_stats() or {}).get('bytes_limit')


def host_bytes() -> int:
  """Returns the memory of this machine, or of the container if it is less."""
  sizes = [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')]
  for name in _CGROUP_FILES:
    try:
      sizes.append(int(pathlib.Path(name).read_text()))
    except (OSError, ValueError):  # Another version of cgroups, or no limit.
      continue
  return min(sizes)
