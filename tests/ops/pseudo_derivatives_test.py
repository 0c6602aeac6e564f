"""Pseudo-derivatives, checked in four ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jumprelu.ops import pseudo_derivatives
from tests.ops import to_threshold

# Different numbers other than 1, so that no factor can be missed.
THRESHOLD, BANDWIDTH = 0.5, 0.25
# Each kernel's standard deviation, in bandwidths.
SPREAD = {
    'rectangle': 12**-0.5,
    'triangle': 6**-0.5,
    'epanechnikov': 5**-0.5,
    'gaussian': 1.0,
}
every_kernel = pytest.mark.parametrize('kernel', pseudo_derivatives.KERNELS)


# First way: a table of points. The columns are z, jumprelu, its derivative with
# respect to z, and heaviside. All numbers are exact in binary, so that points are
# exactly on the edges at half a bandwidth and at a whole bandwidth.
TABLE = np.float32(
    [
        (-1.0, 0.0, 0.0, 0.0),  # Inactive, far away: u = -6.
        (0.25, 0.0, 0.0, 0.0),  # u = -1.
        (
            0.375,
            0.0,
            0.0,
            0.0,
        ),  # u = -1/2: the edge of the rectangle is outside.
        (0.4375, 0.0, 0.0, 0.0),  # u = -1/4.
        (0.5, 0.0, 0.0, 0.0),  # On the threshold: inactive.
        (0.5625, 0.5625, 1.0, 1.0),  # Active, u = 1/4.
        (0.625, 0.625, 1.0, 1.0),  # The upper edge is outside.
        (3.0, 3.0, 1.0, 1.0),  # Active, far away: u = 10.
    ]
).T
# K(u) at those points.
KERNEL_TABLE = {
    'rectangle': (0, 0, 0, 1, 1, 1, 0, 0),
    'triangle': (0, 0, 0.5, 0.75, 1, 0.75, 0.5, 0),
    'epanechnikov': (0, 0, 0.5625, 0.703125, 0.75, 0.703125, 0.5625, 0),
    'gaussian': (
        6.0758828e-9, 0.24197072, 0.35206533, 0.38666812, 0.39894228,
        0.38666812, 0.35206533, 7.6945986e-23,
    ),
}  # fmt: skip


@every_kernel
@pytest.mark.parametrize('to_pre_acts', [False, True])
def test_values_and_derivatives_at_a_table_of_points(kernel, to_pre_acts):
  # Each point is a latent, because gradients of rows would be summed.
  z, jump, jump_to_z, step = map(jnp.asarray, TABLE)
  near = np.asarray(KERNEL_TABLE[kernel])
  for function, value, to_z, size in (
      (pseudo_derivatives.jumprelu, jump, jump_to_z, THRESHOLD / BANDWIDTH),
      (pseudo_derivatives.heaviside, step, 0 * step, 1 / BANDWIDTH),
  ):
    outputs, pull = jax.vjp(
        lambda p, t, f=function: f(
            p, t, BANDWIDTH, kernel=kernel, gradient_to_pre_acts=to_pre_acts
        ),
        z,
        jnp.full(len(z), THRESHOLD),
    )
    actual_z, actual_threshold = pull(jnp.ones(len(z)))
    np.testing.assert_array_equal(outputs, value)
    exact = {'rtol': 1e-6 if kernel == 'gaussian' else 0}
    np.testing.assert_allclose(actual_threshold, -size * near, **exact)
    np.testing.assert_allclose(
        actual_z, to_z + to_pre_acts * size * near, **exact
    )


def test_the_default_is_the_rectangle_without_gradient_to_pre_acts():
  z, threshold, cotangent = map(jnp.asarray, to_threshold.random_case(3, 20, 4))
  for function in (pseudo_derivatives.jumprelu, pseudo_derivatives.heaviside):
    plain, named = (
        jax.vjp(lambda z, t, f=function, o=o: f(z, t, 0.4, *o), z, threshold)[
            1
        ](cotangent)
        for o in ((), ('rectangle', False))
    )
    for a, b in zip(plain, named, strict=True):
      np.testing.assert_array_equal(a, b)


# Second way: expectations. Pre-activations are the quantiles of a logistic
# distribution, whose density is known.
def logistic_quantiles(count):
  u = (np.arange(count) + 0.5) / count
  return np.log(u / (1 - u)).astype(np.float32)[:, None]


def logistic_density(z):
  return np.exp(-z) / (1 + np.exp(-z)) ** 2


@every_kernel
def test_mean_heaviside_gradient_is_minus_the_density_at_the_threshold(kernel):
  z, width = logistic_quantiles(200_000), 0.03 / SPREAD[kernel]
  gradient = to_threshold.threshold_gradient(
      pseudo_derivatives.heaviside, z, [0.7], width, kernel=kernel
  )
  np.testing.assert_allclose(
      gradient / len(z), -logistic_density(0.7), rtol=1e-3
  )


@every_kernel
def test_mean_squared_error_gradient_is_that_of_the_expected_loss(kernel):
  # E (a z - J(z))^2 has the derivative (a^2 - (a - 1)^2) t^2 p(t). The bandwidth
  # causes a bias of half a percent.
  z, a, threshold = logistic_quantiles(200_000), 0.8, 0.7

  def loss(t):
    width = 0.003 / SPREAD[kernel]
    latents = pseudo_derivatives.jumprelu(
        jnp.asarray(z), t, width, kernel=kernel
    )
    return jnp.square(a * z - latents).mean()

  gradient = jax.grad(loss)(jnp.array([threshold]))
  expected = (2 * a - 1) * threshold**2 * logistic_density(threshold)
  np.testing.assert_allclose(gradient, expected, rtol=1e-2)


@every_kernel
def test_gradient_to_pre_acts_is_that_of_the_expectation_to_a_bias(kernel):
  # The derivative of E H(z + b - t) with respect to b is p(t), and that of
  # E J(z + b, t) is P(z > t) + t p(t).
  z, t = jnp.asarray(logistic_quantiles(200_000)), 0.7
  density, above = logistic_density(t), 1 / (1 + np.exp(t))
  for function, expected, ordinary in (
      (pseudo_derivatives.heaviside, density, 0.0),
      (pseudo_derivatives.jumprelu, above + t * density, above),
  ):
    for flag, value in ((True, expected), (False, ordinary)):
      gradient = jax.grad(
          lambda b, f=function, flag=flag: f(
              z + b, jnp.array([t]), 0.03 / SPREAD[kernel], kernel, flag
          ).mean()
      )(0.0)
      np.testing.assert_allclose(gradient, value, rtol=1e-3)


# Third way: finite differences, in float64, of the functions smoothed by the
# kernel. With F(u) the integral of K(v) up to u and G(u) that of v K(v), the
# smoothed heaviside is F(u), and the smoothed jumprelu is z F(u) - bandwidth G(u).
def integrals(kernel, u):
  half, whole = np.clip(u, -0.5, 0.5), np.clip(u, -1, 1)
  size = np.abs(whole)
  if kernel == 'rectangle':
    return half + 0.5, (half**2 - 0.25) / 2
  if kernel == 'triangle':
    below = whole - np.sign(whole) * whole**2 / 2 + 0.5
    return below, size**2 / 2 - size**3 / 3 - 1 / 6
  if kernel == 'epanechnikov':
    below = 0.75 * (whole - whole**3 / 3) + 0.5
    return below, 0.75 * (whole**2 / 2 - whole**4 / 4 - 0.25)
  return special.ndtr(u), -np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)


def smooth_heaviside(kernel, z, threshold, bandwidth):
  return integrals(kernel, (z - threshold) / bandwidth)[0]


def smooth_jumprelu(kernel, z, threshold, bandwidth):
  below, moment = integrals(kernel, (z - threshold) / bandwidth)
  return z * below - bandwidth * moment


@every_kernel
@pytest.mark.parametrize(
    'function, smooth',
    [
        (pseudo_derivatives.jumprelu, smooth_jumprelu),
        (pseudo_derivatives.heaviside, smooth_heaviside),
    ],
)
def test_gradient_is_the_finite_difference_of_the_smoothed_function(
    function, smooth, kernel
):
  rng = np.random.default_rng(0)
  z = rng.uniform(-0.2, 0.9, (500, 7))
  cotangent = rng.normal(size=z.shape)
  threshold = rng.uniform(0.05, 0.6, 7)
  h, width = 1e-7, 0.3
  by_threshold, by_z = (
      cotangent
      * (
          smooth(kernel, z + h * (1 - k), threshold + h * k, width)
          - smooth(kernel, z - h * (1 - k), threshold - h * k, width)
      )
      / (2 * h)
      for k in (1, 0)
  )
  if function is pseudo_derivatives.jumprelu:
    # The ordinary derivative is not smoothed.
    hard = z > threshold
    by_z += cotangent * (hard - smooth_heaviside(kernel, z, threshold, width))
  with jax.enable_x64(True):
    actual_z, actual_threshold = jax.vjp(
        lambda z, t: function(z, t, width, kernel, True),
        *map(jnp.asarray, (z, threshold)),
    )[1](jnp.asarray(cotangent))
  assert actual_z.dtype == actual_threshold.dtype == np.float64
  for actual, expected in (
      (actual_threshold, by_threshold.sum(axis=0)),
      (actual_z, by_z),
  ):
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


# Fourth way: shapes, types, jit, vmap and sharding.
@pytest.mark.parametrize(
    'function', [pseudo_derivatives.jumprelu, pseudo_derivatives.heaviside]
)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('leading', [(), (6,), (2, 3)])
@pytest.mark.parametrize('options', [(), ('gaussian', True)])
def test_cotangents_have_the_shapes_and_types_of_the_primals(
    function, dtype, leading, options
):
  pre_acts = jnp.full((*leading, 4), 0.5, dtype)
  threshold = jnp.full(4, 0.4, jnp.float32)

  @jax.jit
  def run(pre_acts, threshold):
    outputs, pull = jax.vjp(
        lambda p, t: function(p, t, 0.5, *options), pre_acts, threshold
    )
    return outputs, pull(jnp.ones_like(outputs))

  outputs, (to_pre_acts, to_threshold) = run(pre_acts, threshold)
  assert outputs.shape == pre_acts.shape
  assert (to_pre_acts.shape, to_pre_acts.dtype) == (pre_acts.shape, dtype)
  assert (to_threshold.shape, to_threshold.dtype) == ((4,), jnp.float32)


def test_members_under_vmap_get_separate_gradients():
  cases = [to_threshold.random_case(seed, 32, 5) for seed in range(3)]
  z, threshold, cotangent = (jnp.stack(c) for c in zip(*cases, strict=True))
  for index, function in enumerate(
      (pseudo_derivatives.jumprelu, pseudo_derivatives.heaviside)
  ):
    actual = jax.jit(
        jax.vmap(
            lambda z, t, c, f=function: to_threshold.threshold_gradient(
                f, z, t, 0.4, c
            )
        )
    )(z, threshold, cotangent)
    expected = [
        to_threshold.numpy_threshold_gradients(z, t, 0.4, c)[index]
        for z, t, c in cases
    ]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_sharded_over_8_devices_gives_the_whole_gradient():
  z, threshold, cotangent = to_threshold.random_case(0, 64, 5)
  mesh = jax.make_mesh(
      (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  sharded = jax.device_put(z, rows)
  expected = to_threshold.numpy_threshold_gradients(
      z, threshold, 0.4, cotangent
  )
  for index, function in enumerate(
      (pseudo_derivatives.jumprelu, pseudo_derivatives.heaviside)
  ):
    actual = jax.jit(
        lambda z, t, c, f=function: to_threshold.threshold_gradient(
            f, z, t, 0.4, c
        )
    )(sharded, threshold, jax.device_put(cotangent, rows))
    np.testing.assert_allclose(actual, expected[index], rtol=1e-5, atol=1e-5)
