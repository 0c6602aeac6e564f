"""Gradients of thresholds: by pseudo-derivatives, and by loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np


def threshold_gradient(
    function, z, threshold, bandwidth, cotangent=None, **options
):
  """Returns d sum(cotangent * function) / d threshold."""
  z = jnp.asarray(z)
  cotangent = jnp.ones_like(z) if cotangent is None else jnp.asarray(cotangent)
  return jax.grad(
      lambda t: (cotangent * function(z, t, bandwidth, **options)).sum(),
      argnums=0,
  )(jnp.asarray(threshold))


def numpy_threshold_gradients(z, threshold, bandwidth, cotangent):
  """Returns both pseudo-gradients by loops, in float64."""
  jump, step = np.zeros(len(threshold)), np.zeros(len(threshold))
  for row, weights in zip(z, cotangent, strict=True):
    for i, t in enumerate(threshold):
      if abs(float(row[i]) - float(t)) < bandwidth / 2:
        jump[i] -= t / bandwidth * weights[i]
        step[i] -= weights[i] / bandwidth
  return jump, step


def random_case(seed, rows, latents):
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(rows, latents)).astype(np.float32)
  threshold = rng.uniform(0.1, 0.8, latents).astype(np.float32)
  return z, threshold, rng.normal(size=z.shape).astype(np.float32)
