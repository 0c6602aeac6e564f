"""Which part of a feature in a word's activation its own latents hold.

The definitions are `absorption`'s; here are the numbers of single words.
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

_SILENT = 1e-8
_ABSORBERS = 3
_COSINE, _FULL_COSINE = 0.1, 0.025
_SHARE = 0.4
# Arrays of the latents' size that are held at a time.
_HELD = 5


# On the device or on the host.
_ByWord = Num[Array, '*words'] | Num[np.ndarray, '*words']


class Parts(NamedTuple):
  """Parts of words' activations along their features' directions."""

  whole: _ByWord
  main: _ByWord
  main_size: _ByWord  # The largest main latent, not its part.
  absorbers: _ByWord
  top: _ByWord
  top_cosine: _ByWord

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
    """Takes words apart, each along the feature of the number given for it.

    Directions are of norm 1.
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
    """Returns how much of each word's feature is absorbed."""
    rest = np.minimum(self.absorbers, self.whole - self.main)
    found = metrics.ratio(rest, rest + self.main).clip(0, 1)
    found = np.where(self.main <= 0, 1.0, found)
    none = (self.main >= self.whole) | (self._share(self.absorbers) < _SHARE)
    return np.where(none, 0.0, found)

  def full(self) -> Bool[np.ndarray, '*words']:
    """Returns which words' features are absorbed by one latent."""
    silent = np.asarray(self.main_size) < _SILENT
    near = np.asarray(self.top_cosine) >= _FULL_COSINE
    large = self._share(self.top) >= _SHARE
    return silent & near & large & (np.asarray(self.whole) >= 0)

  def _share(self, part):
    whole = np.asarray(self.whole)
    return np.asarray(part) / np.where(whole == 0, np.inf, whole)


@functools.partial(jax.jit, static_argnames=('sae', 'mesh'))
def take_apart(
    params: Any,
    inputs: Float[Array, 'rows words model'],
    targets: Float[Array, 'rows words target_model'],
    *,
    directions: Float[Array, 'features target_model'],
    main: Bool[Array, 'features latents'],
    features: Int[Array, 'rows words'],
    sae: Any,
    mesh: Any = None,
) -> Parts:
  """Returns the parts of words, given by a member's activations at them."""

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

  found = jitted.by_chunks(
      run, _HELD * sae.width, inputs, targets, features, mesh=mesh
  )
  return jitted.replicate(jitted.join(found), mesh)
