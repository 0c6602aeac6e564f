"""Tests of one SAE: arrays, encoding, decoding and JAX transformations."""

import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jumprelu
from jumprelu import errors
from jumprelu.release.formats import record
from tests.saes import small


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
  for x in (np.zeros((2, 3), np.float32), jnp.zeros(3), [1.0, 2.0, 3.0]):
    shape = re.escape(str(np.shape(x)))
    for function in (sae.encode, sae.encode_sparse):
      with pytest.raises(errors.UserError, match=f'{shape}: .*128.* d_in of'):
        function(x)
    with pytest.raises(errors.UserError, match=f'{shape}: .*64.* latents of'):
      sae.decode(x)


@pytest.fixture(params=small.variants())
def variant(request):
  """Returns a small SAE of each variant."""
  sae = small.make(request.param)
  params = small.trained_like(sae)
  released = record.Released(sae, params, record.Origin(), {})
  return jumprelu.SAE(released, path=request.param)


def test_every_variant_keeps_the_kind_of_array_under_transformations(variant):
  x = small.rows(3, small.D_IN)
  latents = variant.encode(x)
  assert latents.dtype == np.float32 and isinstance(latents, np.ndarray)
  assert 0 < (latents != 0).sum() < latents.size
  reconstruction = variant.decode(latents)
  assert isinstance(reconstruction, np.ndarray)
  np.testing.assert_allclose(
      latents,
      variant.sae.encode(
          jax.tree.map(jnp.asarray, variant.params), jnp.asarray(x)
      ),
      rtol=1e-5,
      atol=1e-6,
  )
  affine = variant.decode(np.zeros((1, small.WIDTH), np.float32))
  np.testing.assert_allclose(
      reconstruction, latents @ variant.W_dec + affine, atol=1e-5
  )
  for encode, decode in (
      (variant.encode, variant.decode),
      (jax.jit(variant.encode), jax.jit(variant.decode)),
      (jax.vmap(variant.encode), jax.vmap(variant.decode)),
      (jax.jit(jax.vmap(variant.encode)), jax.jit(jax.vmap(variant.decode))),
  ):
    encoded = encode(jnp.asarray(x))
    decoded = decode(encoded)
    assert isinstance(encoded, jax.Array) and isinstance(decoded, jax.Array)
    np.testing.assert_allclose(encoded, latents, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(decoded, reconstruction, rtol=1e-5, atol=1e-5)


def test_every_variant_has_gradients(variant):
  # One row, whose latents do not change over a small step.
  x = jnp.asarray(small.rows(3, small.D_IN)[:1])
  weights = jnp.asarray(small.rows(4, variant.sae.d_out)[:1])

  def value(x):
    return (variant.decode(variant.encode(x)) * weights).sum()

  gradient = jax.jit(jax.grad(value))(x)
  step = 1e-3 * gradient / jnp.linalg.norm(gradient)
  before, after = variant.encode(x - step), variant.encode(x + step)
  np.testing.assert_array_equal(before != 0, after != 0)
  measured = (value(x + step) - value(x - step)) / 2
  np.testing.assert_allclose(measured, (gradient * step).sum(), rtol=2e-2)
  size = int((before != 0).sum())

  def sparse(x):
    return variant.encode_sparse(x, size=size + 2).value.sum()

  np.testing.assert_allclose(
      jax.grad(sparse)(x),
      jax.grad(lambda x: variant.encode(x).sum())(x),
      rtol=1e-5,
      atol=1e-6,
  )


def test_every_variants_sparse_latents_scatter_to_the_dense_ones(variant):
  x = small.rows(3, small.D_IN)
  dense = variant.encode(x)
  active = int((dense != 0).sum())
  for sparse in (
      variant.encode_sparse(x),
      variant.encode_sparse(x, size=active),
  ):
    assert all(isinstance(part, np.ndarray) for part in sparse)
    scattered = np.zeros_like(dense)
    scattered[sparse.row, sparse.latent] = sparse.value
    np.testing.assert_array_equal(scattered, dense)
  eager = variant.encode_sparse(jnp.asarray(x))
  padded = jax.jit(lambda x: variant.encode_sparse(x, size=active + 5))(x)
  for sparse in (eager, padded):
    assert all(isinstance(part, jax.Array) for part in sparse)
    scattered = (
        jnp.zeros(dense.shape).at[sparse.row, sparse.latent].set(sparse.value)
    )
    np.testing.assert_allclose(scattered, dense, rtol=1e-5, atol=1e-6)
  assert len(padded.row) == active + 5 and not padded.value[active:].any()
  rows = jax.vmap(lambda x: variant.encode_sparse(x, size=small.WIDTH))(x)
  np.testing.assert_allclose(rows.value.sum(1), dense.sum(1), rtol=1e-5)


def test_sparse_latents_need_a_size_under_transformations(sae, x):
  with pytest.raises(errors.UserError, match='pass size='):
    jax.jit(sae.encode_sparse)(jnp.asarray(x, jnp.float32))


def test_inputs_may_be_of_any_type_and_have_any_leading_axes(sae, x):
  exact = x.astype(np.float32)
  expected = sae.encode(exact)
  for same in (exact.tolist(), x, np.asfortranarray(exact)):
    result = sae.encode(same)
    assert isinstance(result, np.ndarray) and result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(
      sae.encode(np.ones(128, int)), sae.encode(np.ones(128, np.float32))
  )
  assert sae.encode(exact[0, 0]).shape == (64,)
  assert sae.decode(expected[0, 0].tolist()).shape == (128,)
  assert sae.encode(exact[:, None]).shape == (3, 1, 4, 64)


def test_bfloat16_is_computed_in_float32(sae, x):
  for short in (x.astype(ml_dtypes.bfloat16), jnp.asarray(x, jnp.bfloat16)):
    latents = sae.encode(short)
    assert latents.dtype == np.float32
    expected = sae.encode(np.asarray(short, np.float32))
    np.testing.assert_array_equal(latents, expected)
    assert sae.decode(latents.astype(short.dtype)).dtype == np.float32
  assert isinstance(sae.encode(x.astype(ml_dtypes.bfloat16)), np.ndarray)


def test_an_empty_batch_has_no_latents(variant):
  for empty in (np.zeros((0, small.D_IN), np.float32), jnp.zeros((2, 0, 6))):
    latents = variant.encode(empty)
    assert latents.shape == (*empty.shape[:-1], small.WIDTH)
    assert variant.decode(latents).shape == empty.shape
    assert variant.encode_sparse(empty).row.shape == (0,)


def test_parameters_are_transferred_once_even_under_jit(release):
  sae = jumprelu.load(release)['resid_post', 5]
  jax.jit(sae.encode)(jnp.zeros((1, 128)))
  first = sae.device_params
  assert not any(isinstance(v, jax.core.Tracer) for v in first.values())
  sae.encode(np.zeros((1, 128), np.float32))
  assert sae.device_params is first


def test_a_repr_is_one_short_line(suite):
  for sae in suite.values():
    assert len(repr(sae)) < 100 and '\n' not in repr(sae)
    assert sae.site in repr(sae) and f'L0 {sae.l0:.1f}' in repr(sae)


def test_loading_an_sae_needs_no_library_of_training(release):
  code = f"""
      import sys
      from jumprelu import extras
      blocked = {{m for extra in extras.EXTRAS.values() for m in extra}}

      class Blocker:
        def find_spec(self, name, path=None, target=None):
          if name.partition('.')[0] in blocked:
            raise ModuleNotFoundError(name, name=name)

      sys.meta_path.insert(0, Blocker())
      import jumprelu
      sae = jumprelu.load({str(release)!r})['resid_post', 20]
      sae.encode(sae.W_dec)
      repr(sae), sae._repr_html_()
      try:
        sae.load_lm()
      except jumprelu.errors.UserError as error:
        print(error)
  """
  code = textwrap.dedent(code)
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == "needs gemma; pip install 'jumprelu[train]'\n"
