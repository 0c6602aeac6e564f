"""Firing statistics: L0, firing frequencies, dead and dense shares."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Num


class Firing(NamedTuple):
  """Numbers of kept tokens, and of kept tokens on which each latent fired."""

  tokens: Num[Array, '']
  fired: Num[Array, ' latents']

  @classmethod
  def empty(cls, width: int) -> 'Firing':
    """Returns the counts of this number of latents over no token."""
    tokens: Any = np.int64(0)
    fired: Any = np.zeros(width, np.int64)
    return cls(tokens, fired)

  @classmethod
  def from_batch(
      cls,
      latents: Float[Array, '*batch latents'],
      keep: Bool[Array, '*batch'],
  ) -> 'Firing':
    """Returns one batch's counts; a latent fires (is active) if nonzero."""
    active = (latents != 0) & keep[..., None]
    # XLA sums integers over rows slowly on a CPU; float32 has these exactly.
    dtype = jnp.float32 if keep.size <= 1 << 24 else jnp.int32
    fired = active.astype(dtype).sum(range(active.ndim - 1))
    return cls(keep.sum(), fired.astype(jnp.int32))

  def merge(self, other: 'Firing') -> 'Firing':
    """Returns the counts over the tokens of both records."""
    return metrics.add(self, other)

  @property
  def firing_frequency(self) -> Num[np.ndarray, ' latents']:
    """Returns the share of tokens on which each latent is active."""
    return metrics.ratio(self.fired, self.tokens)

  def compute(self, dense_share: float) -> dict[str, Any]:
    """Returns `l0` and the shares of latents that are dead and dense.

    Dead: never active on these tokens. Dense: active on more than
    `dense_share` of them.
    """
    frequency = self.firing_frequency
    return {
        'l0': frequency.sum(),
        'dead_share': np.mean(np.asarray(self.fired) == 0),
        'dense_share': np.mean(frequency > dense_share),
    }
