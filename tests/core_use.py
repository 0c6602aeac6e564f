"""A program that uses the core without an extra, on the files in a folder.

`write` fills the folder with a release, `release`, and SAEs in the formats of
other packages, `published`.
"""

import pathlib
import sys

import jax.numpy as jnp
import numpy as np

import jumprelu
from jumprelu import release
from jumprelu.release import formats


def write(folder: pathlib.Path) -> None:
  """Writes the files that `use` reads; needs the extra `test`."""
  from tests import small_release
  from tests.release.formats import folders

  small_release.write(folder / 'release')
  scope = folder / 'published/gemma-scope-2b-pt-res/layer_20/width_16'
  folders.gemma_scope(scope / 'average_l0_7', folders.arrays())
  folders.saelens(
      folder / 'published/saelens',
      folders.arrays(seed=1),
      {'architecture': 'jumprelu'},
  )


def use(folder: pathlib.Path) -> None:
  """Loads SAEs, encodes, decodes and verifies; raises if a result is wrong."""
  print('jumprelu is', pathlib.Path(jumprelu.__file__).parent)
  for name in release.list_members(folder / 'release'):
    sae, params, _ = release.load_member(folder / 'release' / name)
    with np.load(folder / 'release' / name / 'test_vectors.npz') as file:
      vectors = dict(file)
    latents = sae.encode(params, jnp.asarray(vectors['x']))
    reconstruction = sae.decode(params, latents)
    np.testing.assert_allclose(latents, vectors['latents'], atol=1e-4)
    np.testing.assert_allclose(
        reconstruction, vectors['reconstruction'], atol=1e-4
    )
  published = formats.find(folder / 'published')
  assert len(published) == 2
  for loaded in published.values():
    params = {name: jnp.asarray(x) for name, x in loaded.params.items()}
    latents = loaded.sae.encode(params, jnp.ones((3, loaded.sae.d_in)))
    assert loaded.sae.decode(params, latents).shape == (3, loaded.sae.d_in)
  for name in ('release', 'published'):
    for sae in jumprelu.load(folder / name).values():
      x = np.ones((3, sae.sae.d_in), np.float32)
      assert sae.decode(sae.encode(x)).shape == (3, sae.sae.d_out)
  assert formats.l0s('gemma-scope-2b-pt-res', layer=20, width=16384)
  print(release.verify_release(folder / 'release'))


if __name__ == '__main__':
  use(pathlib.Path(sys.argv[1]))
