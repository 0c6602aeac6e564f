"""Decoder rows of unit norm: projection of gradients, renormalisation."""

import math

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float

_LANES = 64


def dot(
    a: Float[Array, '*rest model'], b: Float[Array, '*rest model']
) -> Float[Array, '*rest']:
  """Give each row's inner product with its like.

  Summed over whole vectors first: within a vector XLA adds one number after
  another on a CPU.
  """
  products = a * b
  lanes = math.gcd(products.shape[-1], _LANES)
  products = products.reshape(*products.shape[:-1], -1, lanes)
  return products.sum(axis=-2).sum(axis=-1)


def project(
    gradient: Float[Array, 'latents model'],
    weights: Float[Array, 'latents model'],
) -> Float[Array, 'latents model']:
  """Remove from each row's gradient its part along the (unit-norm) row."""
  return gradient - dot(gradient, weights)[..., None] * weights


def unit(
    weights: Float[Array, 'latents model'],
) -> Float[Array, 'latents model']:
  """Scale each row to unit norm."""
  norms = jnp.sqrt(dot(weights, weights))[..., None]
  # A row of zeros has no direction; it stays as it is, and finite.
  return weights / jnp.maximum(norms, jnp.finfo(weights.dtype).tiny)
