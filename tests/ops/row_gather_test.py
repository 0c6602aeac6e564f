"""Rows of weights: blocks, inner products, unit norm, and decay."""

import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.ops import adam, row_gather, unit_norm


@pytest.mark.parametrize(
    ('count', 'limit', 'size'),
    [(16384, 4096, 4096), (49152, 4096, 4096), (1000, 256, 250), (7, 256, 7)],
)
def test_rows_are_divided_into_equal_blocks(count, limit, size):
  assert row_gather.largest_divisor(count, limit) == size


def test_a_block_of_each_array_is_read_and_written():
  arrays = {'matrix': jnp.arange(24.0).reshape(8, 3), 'vector': jnp.arange(8)}
  blocks = {'matrix': -jnp.ones((2, 3)), 'vector': jnp.array([-1, -2])}
  written = row_gather.write(arrays, blocks, 3)
  for name, array in arrays.items():
    expected = np.array(array)
    expected[6:8] = blocks[name]
    np.testing.assert_array_equal(written[name], expected)
  read = row_gather.read(written, start=6, size=2)
  for name, block in blocks.items():
    np.testing.assert_array_equal(read[name], block)


@pytest.mark.parametrize('model', [1, 80, 96, 2304])
def test_an_inner_product_sums_all_of_a_row(model):
  a, b = np.random.default_rng(0).normal(size=(2, 5, model))
  actual = unit_norm.dot(jnp.float32(a), jnp.float32(b))
  np.testing.assert_allclose(actual, (a * b).sum(axis=1), rtol=1e-4, atol=1e-5)


def test_second_moments_decay_as_if_multiplied_each_step():
  steps = np.array([0, 1, 3, 5000])
  factor = adam.decay(jnp.float32(steps), b2=0.999)
  np.testing.assert_allclose(factor, 0.999**steps, rtol=1e-6)
  assert factor[0] == 1


def test_a_row_of_zeros_stays_zero():
  weights = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(unit_norm.unit(weights), [[0.6, 0.8], [0.0, 0.0]])
