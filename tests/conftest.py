"""Settings for every test: 8 simulated devices, strict shapes, checked types."""

import os
import sys

# Before jax is imported anywhere.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=8'
)

# experiments/ and launch/ are not installed; the package itself is, and wins.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
install_import_hook('jumprelu', 'beartype.beartype')
