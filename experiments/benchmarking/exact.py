"""Reference gradients of a JumpReLU's loss: NumPy in float64, and autodiff.

The float64 gradients start from the same float32 pre-activations as those of
the backends. The same pairs are therefore active or near a threshold, and only
the rounding of the sums differs.
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
  """Returns float64 gradients by parameter name.

  `threshold` is the gradient by the threshold itself, not by its logarithm.
  """
  keep = np.asarray(batch.keep)[:, None]
  # Compared in float32, as in the backends.
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
  grads = {
      'W_dec': latents.T @ errors,
      'W_enc': x.T @ (active * slopes),
      'b_enc': (active * slopes).sum(0),
      'b_dec': errors.sum(0),
      'threshold': -(near * (theta * slopes + penalty / rows)).sum(0)
      / settings.bandwidth,
  }
  if settings.pre_encoder_bias:
    grads['W_enc'] -= np.outer(b_dec, grads['b_enc'])
    grads['b_dec'] -= W_enc @ grads['b_enc']
  return grads


def differentiate(
    sae: Any, params: dict[str, Any], batch: active_pairs.Batch
) -> tuple[Any, dict[str, Any]]:
  """Returns the parts of the loss, and its gradients by autodiff."""

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
