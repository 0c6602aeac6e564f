"""Pseudo-gradients and finite differences of a small SAE's loss.

Both are derivatives with respect to the threshold, which all latents share. The
SAE has a few latents, and its inputs are Gaussian with a mean squared norm of
1.
"""

from collections.abc import Sequence
from typing import Any

from experiments.figures import toys

_SIZE, WIDTH = 4, 6  # WIDTH is the number of latents.
_LAMBDA = 0.03
_STEP = 0.01  # Change of the threshold in each direction, for differences.


def draw(batches: int, batch: int) -> tuple[Any, Any]:
  """Returns a random decoder and random rows, [batches, batch, size]."""
  import numpy as np

  rng = np.random.default_rng(0)
  decoder = rng.normal(size=(WIDTH, _SIZE))
  decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
  rows = rng.normal(size=(batches, batch, _SIZE)) / _SIZE**0.5
  return decoder.astype(np.float32), rows.astype(np.float32)


def functions(z: Any, threshold: float, bandwidth: float) -> dict[str, Any]:
  """Returns JumpReLU, step and their pseudo-derivatives at the points `z`.

  Derivatives are with respect to the threshold.
  """
  import jax
  import jax.numpy as jnp

  from jumprelu.ops import pseudo_derivatives

  def run(function):
    def at(z, threshold):
      return function(z[None], threshold[None], bandwidth)[0]

    by_threshold = jax.vmap(jax.value_and_grad(at, 1), (0, None))
    return by_threshold(jnp.asarray(z), jnp.float32(threshold))

  jumprelu, jumprelu_slope = run(pseudo_derivatives.jumprelu)
  step, step_slope = run(pseudo_derivatives.heaviside)
  return {
      'z': z,
      'jumprelu': jumprelu,
      'jumprelu_slope': jumprelu_slope,
      'step': step,
      'step_slope': step_slope,
  }


def gradients(
    decoder: Any, rows: Any, thresholds: Sequence[float], bandwidth: float
) -> Any:
  """Returns the pseudo-gradient of each batch, [thresholds, batches]."""
  import jax

  return _by_batch(jax.grad(_loss(decoder, bandwidth)), rows, thresholds)


def differences(decoder: Any, rows: Any, thresholds: Sequence[float]) -> Any:
  """Returns central differences of each batch's loss, [thresholds, batches].

  The difference of a single batch is as noisy as a pseudo-gradient with a
  kernel of the same width, so only the mean over batches is a useful reference.
  """
  # The loss itself does not depend on the bandwidth, so any value works.
  up, down = (
      _by_batch(_loss(decoder, 1.0), rows, [t + h for t in thresholds])
      for h in (_STEP, -_STEP)
  )
  return (up - down) / (2 * _STEP)


def _by_batch(function, rows, thresholds):
  import jax
  import jax.numpy as jnp
  import numpy as np

  at = jnp.asarray(thresholds, jnp.float32)
  run = jax.vmap(function, (0, None))
  values = jax.jit(lambda rows: jax.lax.map(lambda x: run(at, x), rows))(rows)
  return np.asarray(values, np.float64).T


def _loss(decoder, bandwidth):
  """Returns a function from the shared threshold and a batch to the loss."""
  import jax.numpy as jnp

  sae = toys.make_sae(
      'jumprelu',
      size=_SIZE,
      width=WIDTH,
      bandwidth=bandwidth,
      threshold_parameter='linear',
  )
  params = {
      'W_enc': jnp.asarray(decoder).T,
      'b_enc': jnp.zeros(WIDTH),
      'W_dec': jnp.asarray(decoder),
      'b_dec': jnp.zeros(_SIZE),
  }

  def loss(threshold, rows):
    return sae.loss(
        params | {'threshold': jnp.full(WIDTH, threshold)},
        rows,
        rows,
        keep=jnp.ones(len(rows), bool),
        sparsity_coefficient=_LAMBDA,
        target_l0=1.0,
    )[0]

  return loss
