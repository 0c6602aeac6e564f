"""Types and shapes are checked; simulated devices do not deadlock."""

import subprocess
import sys

import beartype.roar
import jax.numpy as jnp
import jaxtyping
import pytest

from jumprelu.files import dotted
from jumprelu.ops import pseudo_derivatives

# Dispatches many programs with collectives and waits only at the end.
_PROGRAM = """
import jax
import jax.numpy as jnp

mesh = jax.make_mesh((8,), ('data',))
sharded, replicated = (
    jax.NamedSharding(mesh, jax.P(*axes)) for axes in (('data',), ())
)
x = jax.device_put(jnp.ones((512, 256)), sharded)
weights = jax.device_put(jnp.eye(256), replicated)
local = jax.jit(lambda x, w: jax.lax.fori_loop(0, 8, lambda _, x: x @ w, x))
total = jax.jit(lambda x: x.sum(), out_shardings=replicated)
totals = []
for _ in range(300):
  for _ in range(4):
    x = local(x, weights)
  totals.append(total(x))
assert all(float(value) == 512 * 256 for value in totals)
"""


def test_simulated_devices_do_not_deadlock():
  subprocess.run([sys.executable, '-c', _PROGRAM], check=True, timeout=120)


def test_types_of_arguments_are_checked():
  with pytest.raises(beartype.roar.BeartypeCallHintParamViolation):
    dotted.leaves(3)


def test_shapes_are_compared_across_arguments():
  with pytest.raises(jaxtyping.TypeCheckError):
    pseudo_derivatives.is_active(jnp.ones((5, 3)), jnp.ones(4))
