"""The memory that steps in place need besides the matrices."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jumprelu.ops import active_pairs, dense, sparse

_ROWS, _MODEL, _WIDTH = 8, 64, 32_768


def _lower(step):
  """Returns the lowered steps of large matrices on a small batch."""
  shape = jax.ShapeDtypeStruct
  float32 = functools.partial(shape, dtype=jnp.float32)
  matrix, touched = float32((_WIDTH, _MODEL)), shape((_WIDTH,), jnp.int32)
  batch = active_pairs.Batch(
      pre_acts=float32((_ROWS, _WIDTH)),
      inputs=float32((_ROWS, _MODEL)),
      targets=float32((_ROWS, _MODEL)),
      keep=shape((_ROWS,), jnp.bool_),
      threshold=float32((_WIDTH,)),
      b_dec=float32((_MODEL,)),
      coefficient=float32(()),
      target_l0=float32(()),
  )
  scalars = active_pairs.AdamScalars(
      float32(()), float32(()), shape((), jnp.int32)
  )
  settings = active_pairs.Settings(1e-3, pre_encoder_bias=True, target_l0=False)

  # Several steps in a loop that returns the matrices, as in training.
  def steps(matrices, batch, scalars):
    def body(_, carry):
      return step(carry[0], batch, scalars, settings=settings)

    first = step(matrices, batch, scalars, settings=settings)
    return jax.lax.fori_loop(0, 3, body, first)

  matrices = active_pairs.Matrices(*[matrix] * 4, touched)
  return jax.jit(steps, donate_argnums=0).lower(matrices, batch, scalars)


@pytest.mark.parametrize(
    'step',
    [dense.step, functools.partial(sparse.step, cap=16)],
    ids=['dense', 'sparse'],
)
def test_no_matrix_is_copied_and_none_has_a_whole_gradient(step):
  memory = _lower(step).compile().memory_analysis()
  matrix = 4 * _MODEL * _WIDTH
  assert memory.alias_size_in_bytes > 4 * matrix
  assert memory.temp_size_in_bytes < matrix
