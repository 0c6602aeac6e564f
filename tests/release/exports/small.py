"""Small SAEs to export, and the comparison of SAEs that were read again."""

import jax.numpy as jnp
import numpy as np

from jumprelu import saes
from jumprelu.release import exports, formats
from jumprelu.release.exports import source
from jumprelu.release.formats import record
from tests import small_release

ORIGIN = record.Origin('gemma2_2b', 3, 'resid_post', None)
TRANSCODER = record.Origin('gemma2_2b', 3, 'transcoder', False)
# Variants of transcoders, and whether they have a skip term.
TRANSCODERS = [
    ('jumprelu', False),
    ('jumprelu', True),
    ('relu', False),
    ('relu', True),
    ('gated', False),
    ('batch_topk', True),
]
WITH_GAIN = record.Origin('gemma3_1b', 3, 'transcoder', True)


def make(variant='jumprelu', *, origin=ORIGIN, path='a', **changes):
  """Returns a trained and folded SAE as the source of an export.

  Args:
    variant: A key of `saes.VARIANTS`.
    origin: The SAE's origin; that of a transcoder makes one.
    path: The SAE's path.
    **changes: `skip`, `d_in`, `d_out`, and fields of the variant's config.
  """
  skip, d_in = changes.pop('skip', False), changes.pop('d_in', 8)
  d_out = changes.pop('d_out', d_in)
  sae = saes.make_sae(
      variant,
      saes.VARIANTS[variant][1](**changes),
      d_in=d_in,
      d_out=d_out,
      width=12,
      transcoder=origin.site == 'transcoder',
      skip=skip,
  )
  params = small_release.perturbed(sae, 4)
  if skip:
    rng = np.random.default_rng(7)
    params['W_skip'] = jnp.asarray(rng.normal(size=(d_in, d_out)), jnp.float32)
  if variant.endswith('topk') and 'batch' not in variant:
    params['k'] = jnp.float32(3)
  scale = 0.75 if origin.site == 'transcoder' else 3.5
  sae, params = sae.fold(params, input_scale=3.5, target_scale=scale)
  params = {name: np.asarray(value) for name, value in params.items()}
  meta = {'variant': variant, 'sparsity_coefficient': 1e-3}
  released = record.Released(sae, params, origin, meta)
  return source.Source(
      path, released, {'l0': 3.2}, np.linspace(0, 1, 12, dtype=np.float32)
  )


def export(sources, out, *, to, **options):
  """Writes an export as the command does; returns its warnings."""
  with exports.new_folder(out) as new:
    return exports.write(sources, new, to=to, **options)


def inputs(d_in=8):
  """Returns 40 random inputs."""
  return (np.random.default_rng(99).normal(size=(40, d_in)) * 4).astype('f4')


def outputs(released, x=None):
  """Returns the latents and the reconstruction of inputs, or of random ones."""
  x = jnp.asarray(inputs(released.sae.d_in) if x is None else x)
  params = {k: jnp.asarray(v) for k, v in released.params.items()}
  latents = released.sae.encode(params, x)
  return latents, released.sae.decode(params, latents, x)


def check_equal(released, original):
  """Compares two SAEs, to 1e-5 of the largest entry."""
  for value, wanted in zip(outputs(released), outputs(original), strict=True):
    assert np.abs(wanted).max() > 0.1
    tolerance = 1e-5 * float(np.abs(wanted).max())
    np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)
  latents, _ = outputs(original)
  assert 0 < (np.asarray(latents) > 0).mean() < 1


def only(out):
  """Returns the only SAE below a folder."""
  (released,) = formats.find(out).values()
  return released
