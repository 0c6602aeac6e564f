"""Rows of weights: Adam without a first moment, unit norm, which to take."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32, Num

_LANES = 64


def take(
    x: Num[Array, 'rows *rest'], index: Int32[Array, ' size']
) -> Num[Array, 'size *rest']:
  """Take rows that are there: looking whether they are costs as much."""
  return x.at[index].get(mode='promise_in_bounds')


def read(arrays: Any, *, start: Any, size: int) -> Any:
  """Read contiguous rows of each array."""
  return jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), arrays
  )


def write(arrays: Any, parts: Any, number: Any) -> Any:
  """Write the numbered one of each array's parts of a size.

  Seen as one entry of an array of parts, whose shape is turned back: XLA splits
  such a write among a CPU's cores, and leaves that of some rows to one of them.
  """

  def one(array, part):
    together = array.reshape(-1, *part.shape)
    together = jax.lax.dynamic_update_slice_in_dim(
        together, part[None], number, 0
    )
    return together.reshape(array.shape)

  return jax.tree.map(one, arrays, parts)


def divide(count: int, most: int) -> int:
  """Give the largest number of rows, `most` or fewer, that divides `count`."""
  return next(
      size for size in range(min(count, most), 0, -1) if not count % size
  )


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


def adam(
    weights: Float[Array, '*shape'],
    nu: Float[Array, '*shape'],
    gradient: Float[Array, '*shape'],
    *,
    learning_rate: Any,
    correction: Any,
    b2: float,
    eps: float,
) -> tuple[Float[Array, '*shape'], Float[Array, '*shape']]:
  """Give new weights and second moments.

  nu <- b2 nu + (1 - b2) g^2;  p <- p - lr g / (sqrt(nu / correction) + eps)
  (Adam, arXiv 1412.6980, algorithm 1, with beta1 = 0); `correction` is 1 - b2^t.
  """
  nu = b2 * nu + (1 - b2) * jnp.square(gradient)
  step = learning_rate * gradient / (jnp.sqrt(nu / correction) + eps)
  return weights - step, nu


def decay(
    steps: Float[Array, '*shape'], *, b2: float
) -> Float[Array, '*shape']:
  """Give what is left of second moments after steps without a gradient."""
  return jnp.exp(steps * math.log(b2))
