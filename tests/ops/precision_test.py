"""The precision of every matrix product in the gradients."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jumprelu import saes
from jumprelu.ops import active_pairs, dense, sparse

_ROWS, _MODEL, _WIDTH = 8, 16, 64
_HIGHEST = (jax.lax.Precision.HIGHEST,) * 2


def _products(jaxpr):
  """Yields the matrix products of a program, including nested programs."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for value in jax.tree.leaves(
        equation.params, is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from _products(inner)


def _check(function, *arguments):
  """Checks that a program's products do not depend on the device.

  With a default precision of bfloat16, a product must either have bfloat16
  inputs or the highest precision. An accelerator would round any other product.
  """
  with jax.default_matmul_precision('bfloat16'):
    program = jax.make_jaxpr(function)(*arguments)
  equations = list(_products(program.jaxpr))
  assert equations
  for equation in equations:
    rounded = all(v.aval.dtype == jnp.bfloat16 for v in equation.invars)
    exact = equation.params['precision'] == _HIGHEST
    assert rounded or exact, equation


@pytest.mark.parametrize('variant', saes.VARIANTS)
def test_gradients_of_every_variant(variant):
  config = saes.VARIANTS[variant][1]()
  sae = saes.make_sae(variant, config, d_in=_MODEL, d_out=_MODEL, width=_WIDTH)
  params = sae.init_params(
      jax.random.key(0), initial_threshold=0.1, target_l0=3.0
  )

  def loss(params, x):
    return sae.loss(
        params,
        x,
        x,
        keep=jnp.ones(_ROWS, bool),
        sparsity_coefficient=0.1,
        target_l0=3.0,
        # Dead latents, for which the loss of TopK has an auxiliary term.
        silent=jnp.full(_WIDTH, 2**30, jnp.int32),
    )[0]

  _check(jax.grad(loss), params, jnp.ones((_ROWS, _MODEL)))


@pytest.mark.parametrize(
    'step',
    [dense.step, functools.partial(sparse.step, cap=16)],
    ids=['dense', 'sparse'],
)
def test_steps_in_place(step):
  matrix = jnp.ones((_WIDTH, _MODEL))
  matrices = active_pairs.Matrices(*[matrix] * 4, jnp.zeros(_WIDTH, jnp.int32))
  batch = active_pairs.Batch(
      pre_acts=jnp.ones((_ROWS, _WIDTH)),
      inputs=jnp.ones((_ROWS, _MODEL)),
      targets=jnp.ones((_ROWS, _MODEL)),
      keep=jnp.ones(_ROWS, bool),
      threshold=jnp.ones(_WIDTH),
      b_dec=jnp.ones(_MODEL),
      coefficient=jnp.float32(1),
      target_l0=jnp.float32(3),
  )
  scalars = active_pairs.AdamScalars(
      jnp.float32(1e-3), jnp.float32(0.5), jnp.int32(1)
  )
  settings = active_pairs.Settings(1e-3, pre_encoder_bias=True, target_l0=False)
  _check(functools.partial(step, settings=settings), matrices, batch, scalars)
