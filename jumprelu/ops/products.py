"""Matrix products of SAEs, in the precision that the run's config names.

JAX's precision 'bfloat16' depends on the platform: a CPU still multiplies in
float32. With `matmul_precision=bfloat16` the factors are therefore rounded to
bfloat16 here, on every platform, in the forward and the backward pass.

Sums and results are always float32, because pre-activations are such results.
In bfloat16, neighbouring pre-activations would be as far apart as the kernel of
the pseudo-derivatives is wide.
"""

import contextlib

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float


def precision(
    name: str | None,
) -> contextlib.AbstractContextManager[None]:
  """Returns a context with this precision; None or 'default': the platform's."""
  if name in (None, 'default'):
    return contextlib.nullcontext()
  return jax.default_matmul_precision(name)


def matmul(
    a: Float[Array, '*batch inner'], b: Float[Array, 'inner columns']
) -> Float[Array, '*batch columns']:
  """Returns a @ b in float32.

  The factors are rounded if JAX's default matmul precision is 'bfloat16'. The
  caller sets it to the run's `matmul_precision`.
  """
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
  # Written by hand, because automatic differentiation would also round the
  # results, which are the gradients, to bfloat16.
  a, b = inputs
  rows = a.reshape(-1, a.shape[-1])
  to_b = _multiply_rounded(rows.T, cotangent.reshape(-1, cotangent.shape[-1]))
  to_a = _multiply_rounded(cotangent, b.T)
  return to_a.astype(a.dtype), to_b.astype(b.dtype)


_rounded.defvjp(_forward, _backward)
