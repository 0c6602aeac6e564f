"""Recomputation of test vectors by the formula that users of a release apply.

The latents of an SAE that equals a JumpReLU SAE are recomputed by the JumpReLU
formula in float64. Those of other SAEs (TopK, and Gated with two encoders) are
recomputed in full float32, independently of the backend's default matmul
precision. Reconstructions are always recomputed in float64.
"""

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.saes import base

# Largest error, relative to the sum of the absolute products. Rounding in a
# float32 sum of a few thousand terms causes a relative error of about 1e-6; a
# wrong scale or a missing bias causes a far larger error.
TEST_VECTOR_TOLERANCE = 1e-5


def wrong_latents(
    sae: base.Sae,
    params: Mapping[str, np.ndarray],
    x: np.ndarray,
    *,
    latents: np.ndarray,
) -> np.ndarray:
  """Returns a mask [rows, latents] of stored latents that are wrong.

  Args:
    sae: The SAE.
    params: The SAE's arrays.
    x: The stored inputs [rows, model].
    latents: The stored latents [rows, latents].
  """
  if sae.variant == 'jumprelu':
    return wrong_in_float64(params, x, latents)
  arrays = {k: jnp.asarray(v) for k, v in params.items()}
  converted = sae.to_jumprelu(arrays)
  if converted is None:
    return _wrong_in_float32(sae, arrays, x, latents)
  equal = {k: np.asarray(v) for k, v in converted[1].items()}
  return wrong_in_float64(equal, x, latents)


def _wrong_in_float32(
    sae: base.Sae, params: base.Params, x: np.ndarray, latents: np.ndarray
) -> np.ndarray:
  """Returns a mask of latents that rounding of pre-activations cannot explain.

  Each pre-activation is moved by the largest allowed error, up if its stored
  latent is active and down if not. If any errors up to this size lead to the
  stored pattern of active latents, these do. That is also true of TopK, whose
  latents depend on each other.
  """
  inputs = jnp.asarray(x)
  # By default, accelerators would round the factors of the products.
  with jax.default_matmul_precision('float32'):
    sizes = [jnp.abs(inputs) @ jnp.abs(params[n]) for n in sae.encoders]
    sizes += [
        jnp.abs(params[n])[None] for n in ('b_enc', 'b_mag') if n in params
    ]
    size = functools.reduce(jnp.add, sizes)
    slack = TEST_VECTOR_TOLERANCE * size
    pre_acts = sae.pre_acts(params, inputs)
    toward = jnp.where(latents > 0, pre_acts + slack, pre_acts - slack)
    computed = sae.latents(params, toward, inputs=inputs)
    # Twice, because `computed` includes the shift by `slack`.
    near = jnp.abs(latents - computed) <= 2 * slack
  return ~np.asarray(near)


def wrong_in_float64(
    params: Mapping[str, np.ndarray], x: np.ndarray, latents: np.ndarray
) -> np.ndarray:
  """Returns a mask [rows, latents] of latents that the formula does not give.

  A latent may be on or off if its pre-activation is within the largest allowed
  error of the threshold.
  """
  wrong = np.zeros(latents.shape, bool)
  x = x.astype(np.float64)
  for part in _slices(latents.shape[1]):
    W_enc = params['W_enc'][:, part].astype(np.float64)
    b_enc, threshold = (
        params[k][part].astype(np.float64) for k in ('b_enc', 'threshold')
    )
    pre_acts = x @ W_enc + b_enc
    slack = TEST_VECTOR_TOLERANCE * (np.abs(x) @ np.abs(W_enc) + np.abs(b_enc))
    stored = latents[:, part]
    on = np.abs(stored - np.maximum(pre_acts, 0)) <= slack
    on &= pre_acts > threshold - slack
    off = (stored == 0) & (pre_acts <= threshold + slack)
    wrong[:, part] = ~(on | off)
  return wrong


def is_wrong_reconstruction(
    params: Mapping[str, np.ndarray],
    latents: np.ndarray,
    reconstruction: np.ndarray,
    *,
    x: np.ndarray,
) -> bool:
  """Returns whether the reconstruction is not that of the stored latents.

  Args:
    params: The SAE's arrays.
    latents: The stored latents [rows, latents].
    reconstruction: The stored reconstruction [rows, target_model].
    x: The stored inputs [rows, model], which a skip term reads.
  """
  value, size = _decode(params, latents, x)
  error = np.abs(value - reconstruction)
  return bool((error > TEST_VECTOR_TOLERANCE * size).any())


def _decode(
    params: Mapping[str, np.ndarray], latents: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the float64 reconstruction and the sum of its absolute terms."""
  value = np.broadcast_to(
      params['b_dec'].astype(np.float64),
      (len(latents), len(params['b_dec'])),
  )
  size = np.abs(value)
  for part in _slices(latents.shape[1]):
    W_dec = params['W_dec'][part].astype(np.float64)
    f = latents[:, part].astype(np.float64)
    value = value + f @ W_dec
    size = size + np.abs(f) @ np.abs(W_dec)
  if 'W_skip' in params:
    x, W_skip = x.astype(np.float64), params['W_skip'].astype(np.float64)
    value = value + x @ W_skip
    size = size + np.abs(x) @ np.abs(W_skip)
  return value, size


def _slices(width: int) -> list[slice]:
  """Returns slices of the latents, small because each is copied to float64."""
  return [slice(i, i + 16384) for i in range(0, width, 16384)]
