"""Matrix products of SAEs, in the precision that the run's config names.

The default precision of JAX depends on the platform: float32 on CPU, single
products of bfloat16 on TPU. With `matmul_precision=bfloat16` the inputs are
therefore rounded here, on every platform, forward and backward. Sums and
results are always float32, because pre-activations are results: rounded to
bfloat16, neighbouring values would be as far apart as a kernel is wide.
"""

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float


def matmul(
    a: Float[Array, '*batch inner'], b: Float[Array, 'inner columns']
) -> Float[Array, '*batch columns']:
  """Returns a @ b in float32; inputs are rounded if the config is bfloat16."""
  if jax.config.jax_default_matmul_precision != 'bfloat16':
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)
  return _rounded(a, b)


@jax.custom_vjp
def _rounded(a, b):
  return _multiply_rounded(a, b)


def _multiply_rounded(a, b):
  a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _forward(a, b):
  return _multiply_rounded(a, b), (a, b)


def _backward(inputs, cotangent):
  # Automatic differentiation would round the results as well.
  a, b = inputs
  rows = a.reshape(-1, a.shape[-1])
  to_b = _multiply_rounded(rows.T, cotangent.reshape(-1, cotangent.shape[-1]))
  to_a = _multiply_rounded(cotangent, b.T)
  return to_a.astype(a.dtype), to_b.astype(b.dtype)


_rounded.defvjp(_forward, _backward)
