"""Decoder rows of unit norm: projected gradients and renormalised rows."""

import math

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float

# The largest number of partial sums that `dot` computes side by side.
_LANES = 64


def dot(
    a: Float[Array, '*rest model'], b: Float[Array, '*rest model']
) -> Float[Array, '*rest']:
  """Returns the inner products of rows of `a` with the same rows of `b`.

  Each row is viewed as a matrix of `lanes` columns. Its columns are summed
  first, because XLA vectorises that sum on a CPU, whereas it would add the
  numbers of a whole row one by one.
  """
  products = a * b
  lanes = math.gcd(products.shape[-1], _LANES)
  products = products.reshape(*products.shape[:-1], -1, lanes)
  return products.sum(axis=-2).sum(axis=-1)


def project(
    gradient: Float[Array, 'latents model'],
    weights: Float[Array, 'latents model'],
) -> Float[Array, 'latents model']:
  """Returns gradients without their components along the rows of `weights`.

  The rows of `weights` must have unit norm.
  """
  return gradient - dot(gradient, weights)[..., None] * weights


def unit(
    weights: Float[Array, 'latents model'],
) -> Float[Array, 'latents model']:
  """Returns the rows scaled to unit norm; rows of zeros stay zero."""
  norms = jnp.sqrt(dot(weights, weights))[..., None]
  # Without the maximum, a row of zeros would be 0 / 0, which is NaN.
  return weights / jnp.maximum(norms, jnp.finfo(weights.dtype).tiny)
