"""Results do not depend on the chunks in which latents are computed."""

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import saes
from jumprelu.evals import jitted


def test_chunks_on_a_cpu_fit_its_cache_or_have_256_rows():
  # 512 latents: 2,048 rows are 4 MB; 2^20 latents: 256 rows would be 1 GB.
  assert jitted.num_chunks((32, 256), 512) == 4
  assert jitted.num_chunks((32, 256), 16384) == 32
  assert jitted.num_chunks((32, 256), 2**20) == 128


def test_chunks_divide_the_positions_and_fit(monkeypatch):
  monkeypatch.setattr(jitted, '_CHUNK_BYTES', 4 * 2 * 5 * 16)
  # 2 sequences of 12 positions, 16 latents: at most 5 positions at a time.
  assert jitted.num_chunks((2, 12), 16) == 3
  assert jitted.num_chunks((2, 12), 1) == 1
  assert jitted.num_chunks((2, 12), 10**6) == 12


def test_sums_and_reconstruction_do_not_depend_on_chunks(monkeypatch):
  sae = saes.make_sae(
      'jumprelu', saes.jumprelu.Config(), d_in=4, d_out=4, width=8
  )
  params = sae.init_params(jax.random.key(0), initial_threshold=0.2)
  x = jax.random.normal(jax.random.key(1), (2, 6, 4))
  keep = jnp.arange(12).reshape(2, 6) % 4 > 0

  def both():
    # Forces a new trace, because the chunk size is a global and no argument.
    jitted.member_sums.clear_cache()
    jitted.reconstruct.clear_cache()
    fidelity, firing = jitted.member_sums(params, x, x, keep=keep, sae=sae)
    value = jitted.reconstruct(params, x, x, keep=keep, sae=sae)
    return [*fidelity, *firing, value]

  whole = both()
  monkeypatch.setattr(jitted, '_CHUNK_BYTES', 4 * 2 * 8 * 2)
  assert jitted.num_chunks((2, 6), 8) == 3
  for a, b in zip(whole, both(), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)
