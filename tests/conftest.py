"""Settings for every test: 8 simulated devices, strict shapes, checked types."""

import os
import sys

# Before jax is imported anywhere. A worker of pytest-xdist finds them set.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
for flag in (
    '--xla_force_host_platform_device_count=8',
    # XLA aborts where a device keeps the others waiting for 40 s, which eight
    # on two cores may well do.
    '--xla_cpu_collective_call_warn_stuck_timeout_seconds=120',
    '--xla_cpu_collective_call_terminate_timeout_seconds=900',
):
  if flag not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'

# experiments/ and launch/ are not installed; the package itself is, and wins.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
install_import_hook('jumprelu', 'beartype.beartype')


def pytest_xdist_auto_num_workers(config):
  """A worker a core, up to four; none for one file, which would take one."""
  asked = config.args
  if len(asked) == 1 and not os.path.isdir(asked[0]):
    return 0
  return min(os.cpu_count() or 1, 4)
