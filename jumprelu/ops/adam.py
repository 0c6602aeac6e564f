"""Adam without a first moment, and the decay of skipped second moments."""

import math
from typing import Any

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float


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
  """Returns new weights and second moments.

  nu <- b2 nu + (1 - b2) g^2;  p <- p - lr g / (sqrt(nu / correction) + eps)
  (Adam, arXiv 1412.6980, algorithm 1, with beta1 = 0), where `correction` is
  1 - b2^t.
  """
  nu = b2 * nu + (1 - b2) * jnp.square(gradient)
  step = learning_rate * gradient / (jnp.sqrt(nu / correction) + eps)
  return weights - step, nu


def decay(
    steps: Float[Array, '*shape'], *, b2: float
) -> Float[Array, '*shape']:
  """Returns the factor of second moments after steps without a gradient."""
  return jnp.exp(steps * math.log(b2))
