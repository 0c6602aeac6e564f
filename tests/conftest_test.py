"""What tests need of the devices that XLA simulates."""

import subprocess
import sys

# Many programs, each of which waits for all devices; nothing waits for them.
_PROGRAM = """
import jax
import jax.numpy as jnp

mesh = jax.make_mesh((8,), ('data',))
here, everywhere = (
    jax.NamedSharding(mesh, jax.P(*axes)) for axes in (('data',), ())
)
x = jax.device_put(jnp.ones((512, 256)), here)
weights = jax.device_put(jnp.eye(256), everywhere)
own = jax.jit(lambda x, w: jax.lax.fori_loop(0, 8, lambda _, x: x @ w, x))
total = jax.jit(lambda x: x.sum(), out_shardings=everywhere)
found = []
for _ in range(300):
  for _ in range(4):
    x = own(x, weights)
  found.append(total(x))
assert all(float(each) == 512 * 256 for each in found)
"""


def test_simulated_devices_do_not_wait_for_each_other_for_ever():
  subprocess.run([sys.executable, '-c', _PROGRAM], check=True, timeout=120)
