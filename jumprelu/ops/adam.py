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
  """Returns the weights w and second moments nu after a step on gradient g.

  This is Adam (arXiv 1412.6980, algorithm 1) with beta1 = 0:

    nu <- b2 nu + (1 - b2) g^2
    w  <- w - learning_rate g / (sqrt(nu / correction) + eps)

  `correction` is 1 - b2^t, where t is the number of the step, from 1.
  """
  nu = b2 * nu + (1 - b2) * jnp.square(gradient)
  step = learning_rate * gradient / (jnp.sqrt(nu / correction) + eps)
  return weights - step, nu


def decay(
    steps: Float[Array, '*shape'], *, b2: float
) -> Float[Array, '*shape']:
  """Returns b2^steps, the decay of second moments without a gradient."""
  return jnp.exp(steps * math.log(b2))
