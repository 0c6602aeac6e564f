"""Absorption of single words: how latents share in representing a feature.

The docstring of `absorption` has the definitions and the symbols a, m and b.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Int, Num
from jumprelu.evals import jitted
from jumprelu.saes import base

# Main latents below this value are silent.
_SILENT = 1e-8
# Number of latents that absorb a word at most.
_ABSORBERS = 3
# Smallest cosine of a latent that absorbs a word partly, and of one that absorbs
# it in full.
_COSINE, _FULL_COSINE = 0.1, 0.025
# Smallest share of the whole component (`Parts.whole`) that the absorbing
# latents must have together.
_SHARE = 0.4
# Number of arrays [words, latents] that are in memory at a time.
_ARRAYS = 5

# One number per word, on the device or on the host.
_ByWord = Num[Array, '*words'] | Num[np.ndarray, '*words']


class Parts(NamedTuple):
  """Components of words' activations along the directions of features."""

  whole: _ByWord  # a.
  main: _ByWord  # m.
  main_size: _ByWord  # Largest absolute value of a main latent.
  absorbers: _ByWord  # b.
  top: _ByWord  # Largest component of any latent.
  top_cosine: _ByWord  # Cosine of that latent's decoder row.

  @classmethod
  def from_latents(
      cls,
      latents: Float[Array, '*words latents'],
      targets: Float[Array, '*words target_model'],
      *,
      W_dec: Float[Array, 'latents target_model'],
      directions: Float[Array, 'features target_model'],
      main: Bool[Array, 'features latents'],
      features: Int[Array, '*words'],
  ) -> 'Parts':
    """Returns the components of words, each along its feature's direction.

    `features` has the index of each word's feature. Directions have norm 1.
    """
    along = jnp.matmul(directions, W_dec.T, precision='highest')
    norms = jnp.linalg.norm(W_dec, axis=-1)
    cosines = (along / jnp.where(norms > 0, norms, 1)[None])[features]
    parts, main = latents * along[features], main[features]
    others = jnp.where(~main & (cosines >= _COSINE) & (parts > 0), parts, 0)
    top = parts.argmax(-1, keepdims=True)

    def at_top(x):
      return jnp.take_along_axis(x, top, -1)[..., 0]

    count = min(_ABSORBERS, latents.shape[-1])
    return cls(
        (targets * directions[features]).sum(-1),
        jnp.where(main, parts, 0).sum(-1),
        jnp.where(main, jnp.abs(latents), 0).max(-1),
        lax.top_k(others, count)[0].sum(-1),
        at_top(parts),
        at_top(cosines),
    )

  def fraction(self) -> Float[np.ndarray, '*words']:
    """Returns each word's absorption fraction, from 0 to 1."""
    rest = np.minimum(self.absorbers, self.whole - self.main)
    share = metrics.ratio(rest, rest + self.main).clip(0, 1)
    share = np.where(self.main <= 0, 1.0, share)
    none = (self.main >= self.whole) | (self._share(self.absorbers) < _SHARE)
    return np.where(none, 0.0, share)

  def full(self) -> Bool[np.ndarray, '*words']:
    """Returns the mask of words that one latent absorbs in full."""
    silent = np.asarray(self.main_size) < _SILENT
    near = np.asarray(self.top_cosine) >= _FULL_COSINE
    large = self._share(self.top) >= _SHARE
    return silent & near & large & (np.asarray(self.whole) >= 0)

  def _share(self, part):
    whole = np.asarray(self.whole)
    return np.asarray(part) / np.where(whole == 0, np.inf, whole)


@functools.partial(jax.jit, static_argnames=('sae', 'mesh'))
def decompose(
    params: Any,
    inputs: Float[Array, 'rows words model'],
    targets: Float[Array, 'rows words target_model'],
    *,
    directions: Float[Array, 'features target_model'],
    main: Bool[Array, 'features latents'],
    features: Int[Array, 'rows words'],
    sae: base.Sae,
    mesh: jax.sharding.Mesh | None = None,
) -> Parts:
  """Returns the components of words, from a member's inputs and targets."""

  def run(chunk):
    inputs, targets, features = chunk
    return Parts.from_latents(
        jitted.encode(sae, params, inputs, mesh=mesh),
        targets,
        W_dec=params['W_dec'],
        directions=directions,
        main=main,
        features=features,
    )

  parts = jitted.by_chunks(
      run, _ARRAYS * sae.width, inputs, targets, features, mesh=mesh
  )
  return jitted.replicate(jitted.join(parts), mesh)
