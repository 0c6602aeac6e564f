"""Matrix products of SAEs, in the precision that the run's config names.

What JAX calls the default precision is another one on each backend: float32 on
CPU, single products of bfloat16 on TPU. So where a run asks for bfloat16
(`matmul_precision=bfloat16`) inputs are rounded here, on every backend, forward
and backward; sums and results are float32 in any case. Pre-activations are
results: rounded to bfloat16 they would lie as far apart as a kernel is wide.
"""

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float


def matmul(
    a: Float[Array, '*batch inner'], b: Float[Array, 'inner columns']
) -> Float[Array, '*batch columns']:
  """Multiply, in float32 or, if the context asks for it, of bfloat16 inputs."""
  if jax.config.jax_default_matmul_precision != 'bfloat16':
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)
  return _rounded(a, b)


@jax.custom_vjp
def _rounded(a, b):
  return _of_rounded(a, b)


def _of_rounded(a, b):
  a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _forward(a, b):
  return _of_rounded(a, b), (a, b)


def _backward(inputs, cotangent):
  # Automatic differentiation would round the results as well.
  a, b = inputs
  rows = a.reshape(-1, a.shape[-1])
  to_b = _of_rounded(rows.T, cotangent.reshape(-1, cotangent.shape[-1]))
  to_a = _of_rounded(cotangent, b.T)
  return to_a.astype(a.dtype), to_b.astype(b.dtype)


_rounded.defvjp(_forward, _backward)
