"""Fidelity of reconstructions: fraction of variance unexplained, and gamma.

FVU = sum ||y - yhat||^2 / sum ||y - ybar||^2 over the whole evaluation set,
with one mean vector ybar of that set (Gemma Scope, arXiv 2408.05147, section
4.1); a mean of batches' ratios would depend on the batch size. gamma =
E||yhat||^2 / E[yhat . y] is the relative reconstruction bias (Gated SAEs,
arXiv 2404.16014): below 1 the reconstructions are shrunk.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Num


class Reconstruction(NamedTuple):
  """Sums over kept tokens."""

  tokens: Num[Array, '']
  residual: Num[Array, '']  # of ||y - yhat||^2
  norm: Num[Array, '']  # of ||yhat||^2
  overlap: Num[Array, '']  # of yhat . y

  @classmethod
  def from_batch(
      cls,
      targets: Float[Array, '*batch target_model'],
      reconstruction: Float[Array, '*batch target_model'],
      keep: Bool[Array, '*batch'],
  ) -> 'Reconstruction':
    """Sums one batch; rows that are not kept may hold anything."""
    rows = keep[..., None]
    targets = jnp.where(rows, targets.astype(jnp.float32), 0)
    reconstruction = jnp.where(rows, reconstruction.astype(jnp.float32), 0)
    return cls(
        keep.sum(),
        jnp.square(targets - reconstruction).sum(),
        jnp.square(reconstruction).sum(),
        (reconstruction * targets).sum(),
    )

  def merge(self, other: 'Reconstruction') -> 'Reconstruction':
    """Returns the sums over both lots of tokens."""
    return metrics.add(self, other)

  def compute(self, targets: metrics.Moments) -> dict[str, Any]:
    """Returns `fvu` and `gamma`, given the moments of the same targets."""
    return {
        'fvu': metrics.ratio(self.residual, targets.sum_of_squares),
        'gamma': metrics.ratio(self.norm, self.overlap),
    }
