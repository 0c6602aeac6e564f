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
    clip: float = 0.0,
    axis: int | tuple[int, ...] = -1,
) -> tuple[Float[Array, '*shape'], Float[Array, '*shape']]:
  """Returns the weights w and second moments nu after a step on gradient g.

  This is Adam (arXiv 1412.6980, algorithm 1) with beta1 = 0:

    nu <- b2 nu + (1 - b2) g^2
    w  <- w - learning_rate g / (sqrt(nu / correction) + eps)

  With a `clip`, the root mean square of g / (sqrt(nu / correction) + eps) over
  `axis` is at most `clip` (as in Adafactor, arXiv 1804.04235, section 6, for
  whole matrices). Otherwise it is up to 1 / sqrt(1 - b2), for gradients much
  larger than earlier ones.

  Args:
    weights: The weights w.
    nu: The second moments.
    gradient: The gradient g.
    learning_rate: The learning rate.
    correction: 1 - b2^t, where t is the number of the step, from 1.
    b2: The decay of the second moments.
    eps: Added to the root of the second moments.
    clip: The largest root mean square; 0 for no limit.
    axis: The axes of the mean; () clips each number by itself.
  """
  nu = b2 * nu + (1 - b2) * jnp.square(gradient)
  step = learning_rate * gradient / (jnp.sqrt(nu / correction) + eps)
  if clip:
    size = gradient / (jnp.sqrt(nu / correction) + eps)
    size = jnp.sqrt(jnp.mean(jnp.square(size), axis, keepdims=True))
    step = step / jnp.maximum(1.0, size / clip)
  return weights - step, nu


def decay(
    steps: Float[Array, '*shape'], *, b2: float
) -> Float[Array, '*shape']:
  """Returns b2^steps, the decay of second moments without a gradient."""
  return jnp.exp(steps * math.log(b2))
