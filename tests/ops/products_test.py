"""Products of SAEs in float32, or with rounded inputs and float32 results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import saes
from jumprelu.ops import products


@pytest.fixture
def arrays():
  rng = np.random.default_rng(0)
  return [
      jnp.asarray(rng.normal(size=shape), jnp.float32)
      for shape in ((6, 5, 64), (64, 32), (6, 5, 32))
  ]


def _rounded(x):
  return np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def test_bfloat16_rounds_inputs_and_never_results(arrays):
  a, b, cotangent = arrays
  with jax.default_matmul_precision('bfloat16'):
    product, pull = jax.vjp(products.matmul, a, b)
    to_a, to_b = pull(cotangent)
  assert product.dtype == to_a.dtype == to_b.dtype == jnp.float32
  x, w, g = map(_rounded, arrays)
  for value, exact in (
      (product, x @ w),
      (to_a, g @ w.T),
      (to_b, np.einsum('abi,abo->io', x, g)),
  ):
    np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-5)
    # Rounded results would be unchanged by rounding to bfloat16.
    assert (_rounded(value) != np.asarray(value)).mean() > 0.9
  assert np.abs(product - products.matmul(a, b)).max() > 1e-3


def test_other_precisions_are_float32_on_cpu(arrays):
  a, b, _ = arrays
  exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
  for precision in (None, 'high', 'highest'):
    with jax.default_matmul_precision(precision):
      np.testing.assert_allclose(products.matmul(a, b), exact, atol=2e-5)


def test_the_lowered_gradient_of_a_jumprelu_has_five_rounded_products():
  sae = saes.make_sae(
      'jumprelu', saes.jumprelu.Config(), d_in=16, d_out=16, width=32
  )
  params = sae.init_params(jax.random.key(0), initial_threshold=0.1)
  x = jnp.ones((8, 16))

  def loss(params):
    return sae.loss(
        params,
        x,
        x,
        keep=jnp.ones(8, bool),
        sparsity_coefficient=1.0,
        target_l0=1.0,
    )[0]

  with jax.default_matmul_precision('bfloat16'):
    text = jax.jit(jax.grad(loss)).lower(params).as_text()
  dots = [line for line in text.splitlines() if 'dot_general' in line]
  # The five large products are rounded. Those of b_dec are exact.
  rounded = [line for line in dots if line.count('bf16') == 2]
  assert len(rounded) == 5, dots
  assert all('f32>' in line.rpartition('->')[2] for line in rounded)
