"""The step functions of a JumpReLU, with pseudo-derivatives for thresholds.

`jumprelu` and `heaviside` jump where a pre-activation z passes its threshold t.
Their true derivative with respect to t is zero almost everywhere. The backward
pass therefore uses the derivative of the same function smoothed by a kernel K
(JumpReLU SAEs, arXiv 2407.14435), with u = (z - t) / bandwidth:

  d jumprelu(z, t) / dt  = -(t / bandwidth) K(u)
  d heaviside(z, t) / dt = -(1 / bandwidth) K(u)

Averaged over a batch, the pseudo-derivatives estimate the derivative of the
*expected* loss. Both functions need the raw pre-activations, because values
that a ReLU or the JumpReLU has set to zero are at the wrong distance from the
threshold.

All kernels integrate to 1 over u. The rectangle is the paper's. Its appendix H
also compares the others but does not state how it scales them, so that they
have their textbook forms here. The same bandwidth therefore smooths by
different amounts. The last two columns are in units of the bandwidth:

  kernel        K(u)                         edge |u|  standard deviation
  rectangle     1 for |u| < 1/2, else 0      1/2       1 / sqrt(12) = 0.289
  triangle      max(1 - |u|, 0)              1         1 / sqrt(6)  = 0.408
  epanechnikov  3/4 max(1 - u^2, 0)          1         1 / sqrt(5)  = 0.447
  gaussian      exp(-u^2 / 2) / sqrt(2 pi)   none      1

To smooth as much as the rectangle, the triangle, the Epanechnikov and the
Gaussian kernel need 0.707, 0.645 and 0.289 times its bandwidth.

With `gradient_to_pre_acts` (an ablation of appendix H) the smoothed function is
also differentiated with respect to z. This adds a term to the ordinary
derivative:

  d jumprelu(z, t) / dz  = (1 if z > t else 0) + (t / bandwidth) K(u)
  d heaviside(z, t) / dz = (1 / bandwidth) K(u)
"""

from collections.abc import Callable
import functools
import math

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float


def _aligned(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
) -> tuple[Array, Array]:
  """Returns both with the same rank, and in float32 at least.

  Near 0.2, neighbouring bfloat16 numbers are 1e-3 apart, which is the width of
  a whole kernel. In bfloat16, rounding would therefore decide which latents
  fire.
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
  """Returns the mask of pre-activations strictly above their threshold."""
  pre_acts, threshold = _aligned(pre_acts, threshold)
  return pre_acts > threshold


def in_kernel(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
) -> Bool[Array, '*batch latents']:
  """Returns the mask of pre-activations inside the rectangle.

  These are less than half a bandwidth from their threshold. The difference of
  two floats is exact if the larger is at most twice the smaller. Rounding can
  therefore move the edge only if the bandwidth exceeds the threshold.
  """
  pre_acts, threshold = _aligned(pre_acts, threshold)
  return jnp.abs(pre_acts - threshold) < bandwidth / 2


def _triangle(u: Float[Array, '...']) -> Float[Array, '...']:
  return jnp.maximum(1.0 - jnp.abs(u), 0.0)


def _epanechnikov(u: Float[Array, '...']) -> Float[Array, '...']:
  return 0.75 * jnp.maximum(1.0 - jnp.square(u), 0.0)


def _gaussian(u: Float[Array, '...']) -> Float[Array, '...']:
  return jnp.exp(-jnp.square(u) / 2) / math.sqrt(2 * math.pi)


# The kernels that multiply cotangents. The rectangle only selects them.
_WEIGHTS: dict[str, Callable[[Array], Array]] = {
    'triangle': _triangle,
    'epanechnikov': _epanechnikov,
    'gaussian': _gaussian,
}
KERNELS = ('rectangle', *_WEIGHTS)


def _near(
    cotangent: Float[Array, '*batch latents'],
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
    kernel: str,
) -> Float[Array, '*batch latents']:
  """Returns each cotangent times K(u)."""
  if kernel == 'rectangle':
    # `where` instead of a product, because it keeps the dtype of cotangents.
    zero = jnp.zeros((), cotangent.dtype)
    return jnp.where(in_kernel(pre_acts, threshold, bandwidth), cotangent, zero)
  pre_acts, threshold = _aligned(pre_acts, threshold)
  return cotangent * _WEIGHTS[kernel]((pre_acts - threshold) / bandwidth)


def _sum_rows(
    near: Float[Array, '*batch latents'], threshold: Float[Array, ' latents']
) -> Float[Array, ' latents']:
  """Returns sums over the batch axes, in float32 at least."""
  dtype = jnp.promote_types(near.dtype, jnp.float32)
  return near.sum(axis=tuple(range(near.ndim - threshold.ndim)), dtype=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def jumprelu(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
    kernel: str = 'rectangle',
    gradient_to_pre_acts: bool = False,
) -> Float[Array, '*batch latents']:
  """Returns the pre-activations above the threshold, and zero for the others.

  The derivatives are those of the module's docstring.

  Args:
    pre_acts: The raw pre-activations.
    threshold: The threshold of each latent.
    bandwidth: The scale of the kernel, above 0.
    kernel: One of `KERNELS`.
    gradient_to_pre_acts: Whether pre-activations get the additional term.
  """
  # Only the pseudo-derivatives depend on these.
  del bandwidth, kernel, gradient_to_pre_acts
  zero = jnp.zeros((), pre_acts.dtype)
  return jnp.where(is_active(pre_acts, threshold), pre_acts, zero)


def _jumprelu_fwd(pre_acts, threshold, *static):
  return jumprelu(pre_acts, threshold, *static), (pre_acts, threshold)


def _jumprelu_bwd(
    bandwidth, kernel, gradient_to_pre_acts, residuals, cotangent
):
  pre_acts, threshold = residuals
  zero = jnp.zeros((), cotangent.dtype)
  to_pre_acts = jnp.where(is_active(pre_acts, threshold), cotangent, zero)
  near = _near(cotangent, pre_acts, threshold, bandwidth, kernel)
  if gradient_to_pre_acts:
    _, size = _aligned(pre_acts, threshold / bandwidth)
    to_pre_acts = (to_pre_acts + size * near).astype(cotangent.dtype)
  # The factor threshold / bandwidth is the same for all rows. It is applied to
  # the sum over rows, which costs only one multiplication per latent.
  total = _sum_rows(near, threshold)
  to_threshold = -(threshold.astype(total.dtype) / bandwidth) * total
  return to_pre_acts, to_threshold.astype(threshold.dtype)


jumprelu.defvjp(_jumprelu_fwd, _jumprelu_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def heaviside(
    pre_acts: Float[Array, '*batch latents'],
    threshold: Float[Array, ' latents'],
    bandwidth: float,
    kernel: str = 'rectangle',
    gradient_to_pre_acts: bool = False,
) -> Float[Array, '*batch latents']:
  """Returns 1 for pre-activations above the threshold, and 0 for the others.

  The sum over latents is the L0. By default the derivative with respect to
  pre-activations is zero, because latents die if the penalty has a gradient
  with respect to the encoder. The other derivatives are those of the module's
  docstring.

  Args:
    pre_acts: The raw pre-activations.
    threshold: The threshold of each latent.
    bandwidth: The scale of the kernel, above 0.
    kernel: One of `KERNELS`.
    gradient_to_pre_acts: Whether pre-activations get a derivative.
  """
  # Only the pseudo-derivatives depend on these.
  del bandwidth, kernel, gradient_to_pre_acts
  dtype = jnp.promote_types(pre_acts.dtype, jnp.float32)
  return is_active(pre_acts, threshold).astype(dtype)


def _heaviside_fwd(pre_acts, threshold, *static):
  return heaviside(pre_acts, threshold, *static), (pre_acts, threshold)


def _heaviside_bwd(
    bandwidth, kernel, gradient_to_pre_acts, residuals, cotangent
):
  pre_acts, threshold = residuals
  near = _near(cotangent, pre_acts, threshold, bandwidth, kernel)
  to_pre_acts = jnp.zeros_like(pre_acts)
  if gradient_to_pre_acts:
    to_pre_acts = (near / bandwidth).astype(pre_acts.dtype)
  to_threshold = -_sum_rows(near, threshold) / bandwidth
  return to_pre_acts, to_threshold.astype(threshold.dtype)


heaviside.defvjp(_heaviside_fwd, _heaviside_bwd)
