"""The step of a JumpReLU, with the pseudo-derivatives that train thresholds.

Both functions jump where a pre-activation z passes its threshold. Their true
derivative with respect to the threshold is zero almost everywhere, so backwards
they use that of the same function smoothed by a rectangle kernel K of width
`bandwidth` (JumpReLU SAEs, arXiv 2407.14435), with u = (z - t) / bandwidth and
K(u) = 1 for |u| < 1/2, else 0:

  d jumprelu(z, t) / dt  = -(t / bandwidth) K(u)
  d heaviside(z, t) / dt = -(1 / bandwidth) K(u)

Averaged over a batch these estimate the derivative of the *expected* loss. Feed
both with the raw pre-activations: what a ReLU or the JumpReLU itself has set to
zero sits at the wrong distance from the threshold.
"""

import functools

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float


def _aligned(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
) -> tuple[Array, Array]:
  """Bring both to one rank and to float32 at least.

  bfloat16 numbers near 0.2 are 1e-3 apart, a whole kernel: comparisons in it
  would decide which latents fire by rounding.
  """
  dtype = jnp.promote_types(
      jnp.promote_types(pre_acts.dtype, threshold.dtype), jnp.float32
  )
  leading = (1,) * (pre_acts.ndim - threshold.ndim)
  return (
      pre_acts.astype(dtype),
      threshold.astype(dtype).reshape(leading + threshold.shape),
  )


def is_active(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
) -> Bool[Array, '*batch latents']:
  """Say which latents fire: strictly above the threshold, never on it."""
  pre_acts, threshold = _aligned(pre_acts, threshold)
  return pre_acts > threshold


def in_kernel(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
) -> Bool[Array, '*batch latents']:
  """Say which pre-activations lie within half a bandwidth (open interval).

  The difference of two floats within a factor of two is exact, so rounding
  moves the edge only where the kernel is wider than the threshold.
  """
  pre_acts, threshold = _aligned(pre_acts, threshold)
  return jnp.abs(pre_acts - threshold) < bandwidth / 2


def _sum_near(
    cotangent: Float[Array, '*batch latents'],
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
) -> Float[Array, ' latents']:
  """Sum the cotangents inside the kernel over every leading axis."""
  dtype = jnp.promote_types(cotangent.dtype, jnp.float32)
  zero = jnp.zeros((), cotangent.dtype)
  near = jnp.where(in_kernel(pre_acts, threshold, bandwidth), cotangent, zero)
  axes = tuple(range(near.ndim - threshold.ndim))
  return near.sum(axis=axes, dtype=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def jumprelu(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
) -> Float[Array, '*batch latents']:
  """Keep the pre-activations above the threshold, set the others to zero.

  Backwards the pre-activations get the ordinary derivative (1 where active)
  and the threshold -(threshold / bandwidth) K.
  """
  del bandwidth  # Shapes the pseudo-derivative only.
  zero = jnp.zeros((), pre_acts.dtype)
  return jnp.where(is_active(pre_acts, threshold), pre_acts, zero)


def _jumprelu_fwd(pre_acts, threshold, bandwidth):
  return jumprelu(pre_acts, threshold, bandwidth), (pre_acts, threshold)


def _jumprelu_bwd(bandwidth, residuals, cotangent):
  pre_acts, threshold = residuals
  zero = jnp.zeros((), cotangent.dtype)
  to_pre_acts = jnp.where(is_active(pre_acts, threshold), cotangent, zero)
  # threshold / bandwidth is common to all rows: after the sum it costs one
  # multiplication a latent.
  near = _sum_near(cotangent, pre_acts, threshold, bandwidth)
  to_threshold = -(threshold.astype(near.dtype) / bandwidth) * near
  return to_pre_acts, to_threshold.astype(threshold.dtype)


jumprelu.defvjp(_jumprelu_fwd, _jumprelu_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def heaviside(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
) -> Float[Array, '*batch latents']:
  """Give 1 for pre-activations above the threshold, else 0; its sum is the L0.

  Backwards the pre-activations get zero (a gradient of the penalty to the
  encoder leaves dead latents) and the threshold -(1 / bandwidth) K.
  """
  del bandwidth  # Shapes the pseudo-derivative only.
  dtype = jnp.promote_types(pre_acts.dtype, jnp.float32)
  return is_active(pre_acts, threshold).astype(dtype)


def _heaviside_fwd(pre_acts, threshold, bandwidth):
  return heaviside(pre_acts, threshold, bandwidth), (pre_acts, threshold)


def _heaviside_bwd(bandwidth, residuals, cotangent):
  pre_acts, threshold = residuals
  to_threshold = -_sum_near(cotangent, pre_acts, threshold, bandwidth)
  to_threshold = to_threshold / bandwidth
  return jnp.zeros_like(pre_acts), to_threshold.astype(threshold.dtype)


heaviside.defvjp(_heaviside_fwd, _heaviside_bwd)
