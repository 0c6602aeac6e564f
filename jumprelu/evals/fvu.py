"""Reconstruction fidelity: fraction of variance unexplained (FVU) and gamma.

FVU = sum ||y - yhat||^2 / sum ||y - ybar||^2 over the whole evaluation set,
where ybar is the mean vector of that set (Gemma Scope, arXiv 2408.05147,
section 4.1). A mean of per-batch ratios would depend on the batch size.

The relative reconstruction bias is gamma = E||yhat||^2 / E[yhat . y] (Gated
SAEs, arXiv 2404.16014); gamma < 1 means that reconstructions are too small.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Num


class Reconstruction(NamedTuple):
  """Number of kept tokens, and sums over them."""

  tokens: Num[Array, '']
  residual: Num[Array, '']  # Sum of ||y - yhat||^2.
  norm: Num[Array, '']  # Sum of ||yhat||^2.
  overlap: Num[Array, '']  # Sum of yhat . y.

  @classmethod
  def empty(cls) -> 'Reconstruction':
    """Returns the sums over no token."""
    counts: Any = np.int64(0)
    sums: Any = np.zeros(3)
    return cls(counts, *sums)

  @classmethod
  def from_batch(
      cls,
      targets: Float[Array, '*batch target_model'],
      reconstruction: Float[Array, '*batch target_model'],
      keep: Bool[Array, '*batch'],
  ) -> 'Reconstruction':
    """Returns one batch's sums; rows that are not kept may hold any value."""
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
    """Returns the sums over the tokens of both records."""
    return metrics.add(self, other)

  def compute(self, targets: metrics.Moments) -> dict[str, Any]:
    """Returns `fvu` and `gamma`; `targets` has moments of the same tokens."""
    return {
        'fvu': metrics.ratio(self.residual, targets.sum_of_squares),
        'gamma': metrics.ratio(self.norm, self.overlap),
    }
