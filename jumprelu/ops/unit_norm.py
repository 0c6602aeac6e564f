"""Decoder rows of unit norm: projection of gradients, renormalisation."""

import math

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float

# The length of the vectors that `dot` sums first.
_LANES = 64


def dot(
    a: Float[Array, '*rest model'], b: Float[Array, '*rest model']
) -> Float[Array, '*rest']:
  """Returns the inner product of each row of `a` with that of `b`.

  Whole vectors are summed first, because within a vector XLA adds numbers one
  by one on a CPU.
  """
  products = a * b
  lanes = math.gcd(products.shape[-1], _LANES)
  products = products.reshape(*products.shape[:-1], -1, lanes)
  return products.sum(axis=-2).sum(axis=-1)


def project(
    gradient: Float[Array, 'latents model'],
    weights: Float[Array, 'latents model'],
) -> Float[Array, 'latents model']:
  """Returns the gradient without its component along each (unit-norm) row."""
  return gradient - dot(gradient, weights)[..., None] * weights


def unit(
    weights: Float[Array, 'latents model'],
) -> Float[Array, 'latents model']:
  """Returns the rows scaled to unit norm."""
  norms = jnp.sqrt(dot(weights, weights))[..., None]
  # A row of zeros has no direction. The maximum keeps it zero, because 0 / 0
  # would be NaN.
  return weights / jnp.maximum(norms, jnp.finfo(weights.dtype).tiny)
