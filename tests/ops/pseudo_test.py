"""Pseudo-derivatives, checked four ways, and the mistakes peers have made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.ops import pseudo

THRESHOLD, BANDWIDTH = 0.5, 0.25  # Neither is 1, and they differ.


def threshold_gradient(function, z, threshold, bandwidth, cotangent=None):
  """Give d sum(cotangent * function) / d threshold."""
  z = jnp.asarray(z)
  cotangent = jnp.ones_like(z) if cotangent is None else jnp.asarray(cotangent)
  return jax.grad(
      lambda t: (cotangent * function(z, t, bandwidth)).sum(), argnums=0
  )(jnp.asarray(threshold))


# First way: a table of points. Columns: z, jumprelu, its derivatives to z and
# to the threshold, heaviside, its derivative to the threshold. All the numbers
# are exact in binary, so the kernel's edges at 0.375 and 0.625 are hit exactly.
TABLE = [
    (-1.0, 0.0, 0.0, 0.0, 0.0, 0.0),  # Inactive, outside.
    (0.25, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.375, 0.0, 0.0, 0.0, 0.0, 0.0),  # The lower edge is outside.
    (0.4375, 0.0, 0.0, -2.0, 0.0, -4.0),  # Inactive, inside.
    (0.5, 0.0, 0.0, -2.0, 0.0, -4.0),  # On the threshold: inactive, inside.
    (0.5625, 0.5625, 1.0, -2.0, 1.0, -4.0),  # Active, inside.
    (0.625, 0.625, 1.0, 0.0, 1.0, 0.0),  # The upper edge is outside.
    (3.0, 3.0, 1.0, 0.0, 1.0, 0.0),  # Active, outside.
]


@pytest.mark.parametrize('row', TABLE, ids=lambda row: f'z={row[0]}')
def test_values_and_derivatives_at_a_table_of_points(row):
  z, jump, jump_to_z, jump_to_threshold, step, step_to_threshold = row
  pre_acts, threshold = jnp.array([z]), jnp.array([THRESHOLD])
  for function, value, to_z, to_threshold in (
      (pseudo.jumprelu, jump, jump_to_z, jump_to_threshold),
      (pseudo.heaviside, step, 0.0, step_to_threshold),
  ):
    outputs, pull = jax.vjp(
        lambda p, t, f=function: f(p, t, BANDWIDTH), pre_acts, threshold
    )
    got_z, got_threshold = pull(jnp.ones(1))
    assert outputs == value
    assert got_z == to_z
    assert got_threshold == to_threshold


# Second way: expectation. Pre-activations at the quantiles of a logistic
# distribution, whose density is known.
def logistic_quantiles(count):
  u = (np.arange(count) + 0.5) / count
  return np.log(u / (1 - u)).astype(np.float32)[:, None]


def logistic_density(z):
  return np.exp(-z) / (1 + np.exp(-z)) ** 2


def test_mean_heaviside_gradient_is_minus_the_density_at_the_threshold():
  z = logistic_quantiles(200_000)
  gradient = threshold_gradient(pseudo.heaviside, z, [0.7], 0.1) / len(z)
  np.testing.assert_allclose(gradient, -logistic_density(0.7), rtol=1e-3)


def test_mean_squared_error_gradient_is_that_of_the_expected_loss():
  # E (a z - J(z))^2 has the derivative (a^2 - (a - 1)^2) t^2 p(t); half a
  # percent of bias comes from the bandwidth.
  z, a, threshold = logistic_quantiles(200_000), 0.8, 0.7

  def loss(t):
    latents = pseudo.jumprelu(jnp.asarray(z), t, 0.01)
    return jnp.square(a * z - latents).mean()

  gradient = jax.grad(loss)(jnp.array([threshold]))
  expected = (2 * a - 1) * threshold**2 * logistic_density(threshold)
  np.testing.assert_allclose(gradient, expected, rtol=1e-2)


# Third way: finite differences, in float64, of the functions smoothed by the
# kernel, that is averaged over a window of one bandwidth around z.
def smooth_heaviside(z, threshold, bandwidth):
  return np.clip((z - threshold) / bandwidth + 0.5, 0.0, 1.0)


def smooth_jumprelu(z, threshold, bandwidth):
  upper = z + bandwidth / 2
  lower = np.clip(threshold, z - bandwidth / 2, upper)
  return (upper**2 - lower**2) / (2 * bandwidth)


@pytest.mark.parametrize(
    'function, smooth',
    [
        (pseudo.jumprelu, smooth_jumprelu),
        (pseudo.heaviside, smooth_heaviside),
    ],
)
def test_gradient_is_the_finite_difference_of_the_smoothed_function(
    function, smooth
):
  rng = np.random.default_rng(0)
  z = rng.uniform(-0.2, 0.9, (500, 7))
  cotangent = rng.normal(size=z.shape)
  threshold = rng.uniform(0.05, 0.6, 7)
  h = 1e-7
  difference = (
      cotangent
      * (smooth(z, threshold + h, 0.3) - smooth(z, threshold - h, 0.3))
      / (2 * h)
  ).sum(axis=0)
  with jax.enable_x64(True):
    gradient = threshold_gradient(function, z, threshold, 0.3, cotangent)
  assert gradient.dtype == np.float64
  np.testing.assert_allclose(gradient, difference, rtol=1e-6, atol=1e-6)


# Fourth way: shapes, types, jit, vmap, sharding.
@pytest.mark.parametrize('function', [pseudo.jumprelu, pseudo.heaviside])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('leading', [(), (6,), (2, 3)])
def test_cotangents_have_the_shapes_and_types_of_the_primals(
    function, dtype, leading
):
  pre_acts = jnp.full((*leading, 4), 0.5, dtype)
  threshold = jnp.full(4, 0.4, jnp.float32)

  @jax.jit
  def run(pre_acts, threshold):
    outputs, pull = jax.vjp(
        lambda p, t: function(p, t, 0.5), pre_acts, threshold
    )
    return outputs, pull(jnp.ones_like(outputs))

  outputs, (to_pre_acts, to_threshold) = run(pre_acts, threshold)
  assert outputs.shape == pre_acts.shape
  assert (to_pre_acts.shape, to_pre_acts.dtype) == (pre_acts.shape, dtype)
  assert (to_threshold.shape, to_threshold.dtype) == ((4,), jnp.float32)


def numpy_threshold_gradients(z, threshold, bandwidth, cotangent):
  """Give both pseudo-gradients by loops, in float64."""
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


def test_members_under_vmap_get_their_own_gradients():
  cases = [random_case(seed, 32, 5) for seed in range(3)]
  z, threshold, cotangent = (jnp.stack(c) for c in zip(*cases, strict=True))
  for which, function in enumerate((pseudo.jumprelu, pseudo.heaviside)):
    got = jax.jit(
        jax.vmap(
            lambda z, t, c, f=function: threshold_gradient(f, z, t, 0.4, c)
        )
    )(z, threshold, cotangent)
    expected = [
        numpy_threshold_gradients(z, t, 0.4, c)[which] for z, t, c in cases
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_sharded_over_8_devices_gives_the_whole_gradient():
  z, threshold, cotangent = random_case(0, 64, 5)
  mesh = jax.make_mesh(
      (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  sharded = jax.device_put(z, rows)
  expected = numpy_threshold_gradients(z, threshold, 0.4, cotangent)
  for which, function in enumerate((pseudo.jumprelu, pseudo.heaviside)):
    got = jax.jit(
        lambda z, t, c, f=function: threshold_gradient(f, z, t, 0.4, c)
    )(sharded, threshold, jax.device_put(cotangent, rows))
    np.testing.assert_allclose(got, expected[which], rtol=1e-5, atol=1e-5)


# Mistakes that peers have made.
@pytest.mark.parametrize('function', [pseudo.jumprelu, pseudo.heaviside])
def test_peer_defect_1_threshold_gradient_sums_all_batch_axes_only(function):
  # Every axis has the same size: a sum over a wrong one has the right shape.
  z, threshold, cotangent = random_case(1, 9, 3)
  which = 0 if function is pseudo.jumprelu else 1
  expected = numpy_threshold_gradients(z, threshold, 0.9, cotangent)[which]
  cube = (3, 3, 3)
  got = threshold_gradient(
      function, z.reshape(cube), threshold, 0.9, cotangent.reshape(cube)
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_peer_defect_3_bandwidth_divides_once():
  # Twice the bandwidth, still inside: half the derivative, not a quarter.
  for function, narrow in ((pseudo.jumprelu, -2.5), (pseudo.heaviside, -5.0)):
    got = [
        threshold_gradient(function, [[0.55]], [0.5], bandwidth)[0]
        for bandwidth in (0.2, 0.4)
    ]
    np.testing.assert_allclose(got, [narrow, narrow / 2], rtol=1e-6)


@pytest.mark.parametrize('z', [0.0, -0.05])
def test_peer_defect_4_pre_activations_up_to_zero_count_in_the_kernel(z):
  # The kernel around 0.1 reaches down to -0.1.
  gradient = threshold_gradient(pseudo.heaviside, [[z]], [0.1], 0.4)
  np.testing.assert_allclose(gradient, [-2.5], rtol=1e-6)


def test_peer_defect_5_a_pre_activation_on_the_threshold_is_inactive():
  z = jnp.array([0.3], jnp.float32)
  above = jnp.nextafter(z, jnp.float32(1))
  assert pseudo.jumprelu(z, z, 0.1) == 0
  assert pseudo.heaviside(z, z, 0.1) == 0
  assert pseudo.jumprelu(above, z, 0.1) == above
  assert pseudo.heaviside(above, z, 0.1) == 1
  gradient = jax.grad(lambda p: pseudo.jumprelu(p, z, 0.1).sum())
  assert (gradient(z), gradient(above)) == (0, 1)


def test_peer_defect_7_a_bfloat16_input_is_compared_in_float32():
  # 0.2001 rounds to bfloat16's 0.2002; so would the threshold 0.2004.
  z = jnp.array([0.2002], jnp.bfloat16)
  exact = float(z[0])
  threshold = jnp.array([exact + 1e-4], jnp.float32)
  assert threshold.astype(jnp.bfloat16) == z
  assert not pseudo.is_active(z, threshold)[0]
  assert pseudo.is_active(z, threshold - 2e-4)[0]
  assert not pseudo.in_kernel(z, threshold, 1.9e-4)[0]
  assert pseudo.in_kernel(z, threshold, 2.1e-4)[0]


def test_a_bfloat16_batch_is_summed_in_float32():
  # 1001 rows: bfloat16 has no such number.
  z = jnp.full((1001, 1), 0.5, jnp.bfloat16)
  gradient = jax.grad(
      lambda t: pseudo.jumprelu(z, t, 1.0).astype(jnp.float32).sum()
  )(jnp.array([0.25]))
  assert gradient == -0.25 * 1001
