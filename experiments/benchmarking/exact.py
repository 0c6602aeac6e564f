"""The gradients of a JumpReLU's loss: in float64 by NumPy, and by autodiff.

The former from the same float32 pre-activations as the backends: which pairs are
active or near a threshold is then beyond dispute, and only sums are compared.
"""

from typing import Any

import jax
import numpy as np

from jumprelu.ops import active_pairs


def gradients(
    batch: active_pairs.Batch,
    W_enc: np.ndarray,
    W_dec: np.ndarray,
    *,
    settings: active_pairs.Settings,
) -> dict[str, np.ndarray]:
  """Returns gradients by the names of parameters; thresholds are linear."""
  keep = np.asarray(batch.keep)[:, None]
  # Comparisons as they are made: in float32.
  distance = np.asarray(batch.pre_acts) - np.asarray(batch.threshold)
  active = (distance > 0) & keep
  near = (np.abs(distance) < np.float32(settings.bandwidth) / 2) & keep
  pre_acts, x, y, theta, b_dec, W_enc, W_dec = (
      np.asarray(array, np.float64)
      for array in (
          batch.pre_acts,
          batch.inputs,
          batch.targets,
          batch.threshold,
          batch.b_dec,
          W_enc,
          W_dec,
      )
  )
  rows = max(keep.sum(), 1)
  latents = np.where(active, pre_acts, 0)
  errors = keep * (latents @ W_dec + b_dec - y) * 2 / rows
  slopes = errors @ W_dec.T
  penalty = float(batch.coefficient)
  if settings.target_l0:
    target = float(batch.target_l0)
    penalty *= 2 * (active.sum() / rows / target - 1) / target
  found = {
      'W_dec': latents.T @ errors,
      'W_enc': x.T @ (active * slopes),
      'b_enc': (active * slopes).sum(0),
      'b_dec': errors.sum(0),
      'threshold': -(near * (theta * slopes + penalty / rows)).sum(0)
      / settings.bandwidth,
  }
  if settings.pre_encoder_bias:
    found['W_enc'] -= np.outer(b_dec, found['b_enc'])
    found['b_dec'] -= W_enc @ found['b_enc']
  return found


def differentiate(
    sae: Any, params: dict[str, Any], batch: active_pairs.Batch
) -> tuple[Any, dict[str, Any]]:
  """Returns the loss's parts and gradients by automatic differentiation."""

  def loss(params):
    return sae.loss(
        params,
        batch.inputs,
        batch.targets,
        keep=batch.keep,
        sparsity_coefficient=batch.coefficient,
        target_l0=batch.target_l0,
    )

  (_, parts), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  return parts, grads
