"""Tests of one SAE: arrays, encoding, decoding and JAX transformations."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors


@pytest.fixture(scope='module')
def sae(suite):
  return suite['resid_post', 20]


@pytest.fixture(scope='module')
def x(sae):
  return np.random.default_rng(0).normal(size=(3, 4, sae.sae.d_in)) * 2


def _encode(sae, x):
  """Returns latents by the definition (2407.14435, eq. 4), in float64."""
  z = x @ sae.W_enc.astype(np.float64) + sae.b_enc
  return z * (z > sae.threshold)


def test_latents_and_reconstructions_follow_the_definition(sae, x):
  latents = sae.encode(x.astype(np.float32))
  expected = _encode(sae, x)
  np.testing.assert_allclose(latents, expected, atol=1e-4)
  assert (latents > 0).any(-1).all()
  np.testing.assert_allclose(
      sae.decode(latents), expected @ sae.W_dec + sae.b_dec, atol=1e-3
  )


def test_sparse_latents_are_those_of_encode(sae, x):
  x = x.astype(np.float32)
  sparse = sae.encode_sparse(x)
  dense = np.zeros((12, sae.width), np.float32)
  dense[sparse.row, sparse.latent] = sparse.value
  np.testing.assert_array_equal(dense, sae.encode(x).reshape(12, -1))
  assert (np.diff(sparse.row) >= 0).all() and (sparse.value != 0).all()


def test_numpy_gives_numpy_and_jax_gives_jax(sae, x):
  assert isinstance(sae.encode(x.astype(np.float32)), np.ndarray)
  assert isinstance(sae.encode(jnp.asarray(x)), jax.Array)


def test_encode_and_decode_run_under_jit_grad_and_vmap(sae, x):
  x = jnp.asarray(x, jnp.float32)

  def error(x):
    return jnp.square(sae.decode(sae.encode(x)) - x).sum()

  gradient = jax.jit(jax.grad(error))(x)
  step = 1e-2 * gradient / jnp.linalg.norm(gradient)
  measured = (error(x + step) - error(x - step)) / 2
  np.testing.assert_allclose(measured, (gradient * step).sum(), rtol=2e-2)
  np.testing.assert_array_equal(jax.vmap(sae.encode)(x), sae.encode(x))


def test_wrong_sizes_are_refused_with_both_sizes(sae):
  with pytest.raises(errors.UserError, match='has 3 entries; d_in is 128'):
    sae.encode(np.zeros((2, 3), np.float32))
  with pytest.raises(errors.UserError, match='latents is 64'):
    sae.decode(np.zeros((2, 3), np.float32))


def test_a_repr_is_one_short_line(suite):
  for sae in suite.values():
    assert len(repr(sae)) < 100 and '\n' not in repr(sae)
    assert sae.site in repr(sae) and f'L0 {sae.l0:.1f}' in repr(sae)


def test_loading_an_sae_needs_no_library_of_training(release):
  code = f"""
      import sys, jumprelu
      sae = jumprelu.load({str(release)!r})['resid_post', 20]
      sae.encode(sae.W_dec)
      heavy = ('gemma', 'flax', 'tensorflow', 'orbax', 'matplotlib')
      print([m for m in heavy if m in sys.modules])
  """
  code = textwrap.dedent(code)
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'
