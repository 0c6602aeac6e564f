"""Mistakes with pseudo-derivatives that other packages have made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.ops import pseudo_derivatives
from tests.ops import to_threshold


@pytest.mark.parametrize(
    'function', [pseudo_derivatives.jumprelu, pseudo_derivatives.heaviside]
)
def test_peer_defect_1_threshold_gradient_sums_all_batch_axes_only(function):
  # All axes have the same size, so that a sum over wrong axes has the right
  # shape.
  z, threshold, cotangent = to_threshold.random_case(1, 9, 3)
  index = 0 if function is pseudo_derivatives.jumprelu else 1
  expected = to_threshold.numpy_threshold_gradients(
      z, threshold, 0.9, cotangent
  )[index]
  cube = (3, 3, 3)
  actual = to_threshold.threshold_gradient(
      function, z.reshape(cube), threshold, 0.9, cotangent.reshape(cube)
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_peer_defect_3_bandwidth_divides_once():
  # The point is inside both kernels. Twice the bandwidth must halve the
  # derivative, not quarter it.
  for function, narrow in (
      (pseudo_derivatives.jumprelu, -2.5),
      (pseudo_derivatives.heaviside, -5.0),
  ):
    actual = [
        to_threshold.threshold_gradient(function, [[0.55]], [0.5], bandwidth)[0]
        for bandwidth in (0.2, 0.4)
    ]
    np.testing.assert_allclose(actual, [narrow, narrow / 2], rtol=1e-6)


@pytest.mark.parametrize('z', [0.0, -0.05])
def test_peer_defect_4_pre_activations_up_to_zero_count_in_the_kernel(z):
  # The kernel around 0.1 reaches down to -0.1.
  gradient = to_threshold.threshold_gradient(
      pseudo_derivatives.heaviside, [[z]], [0.1], 0.4
  )
  np.testing.assert_allclose(gradient, [-2.5], rtol=1e-6)


def test_peer_defect_5_a_pre_activation_on_the_threshold_is_inactive():
  z = jnp.array([0.3], jnp.float32)
  above = jnp.nextafter(z, jnp.float32(1))
  assert pseudo_derivatives.jumprelu(z, z, 0.1) == 0
  assert pseudo_derivatives.heaviside(z, z, 0.1) == 0
  assert pseudo_derivatives.jumprelu(above, z, 0.1) == above
  assert pseudo_derivatives.heaviside(above, z, 0.1) == 1
  gradient = jax.grad(lambda p: pseudo_derivatives.jumprelu(p, z, 0.1).sum())
  assert (gradient(z), gradient(above)) == (0, 1)


def test_peer_defect_7_a_bfloat16_input_is_compared_in_float32():
  # The threshold is 1e-4 above z, but would round to z in bfloat16.
  z = jnp.array([0.2002], jnp.bfloat16)
  exact = float(z[0])
  threshold = jnp.array([exact + 1e-4], jnp.float32)
  assert threshold.astype(jnp.bfloat16) == z
  assert not pseudo_derivatives.is_active(z, threshold)[0]
  assert pseudo_derivatives.is_active(z, threshold - 2e-4)[0]
  assert not pseudo_derivatives.in_kernel(z, threshold, 1.9e-4)[0]
  assert pseudo_derivatives.in_kernel(z, threshold, 2.1e-4)[0]


def test_a_bfloat16_batch_is_summed_in_float32():
  # A sum in bfloat16 would be wrong, because it cannot represent 1001.
  z = jnp.full((1001, 1), 0.5, jnp.bfloat16)
  gradient = jax.grad(
      lambda t: pseudo_derivatives.jumprelu(z, t, 1.0).astype(jnp.float32).sum()
  )(jnp.array([0.25]))
  assert gradient == -0.25 * 1001
