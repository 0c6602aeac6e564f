"""Delta loss and loss recovered: the cost of a splice to the language model.

Losses are averaged over kept positions whose next token is in the same
document. The main number is delta_loss = spliced - clean in nats per token
(Gemma Scope, arXiv 2408.05147, section 4.1). The loss recovered,
1 - delta_loss / (ablated - clean) (Gated SAEs, arXiv 2404.16014), saturates
near 1. It depends on the ablation, so there are two: one for zeros, and one for
the mean activation.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Int


class SequenceLosses(NamedTuple):
  """One batch's losses, summed over the scored positions of each sequence."""

  total: Float[Array, ' sequences']
  tokens: Int[Array, ' sequences']

  @classmethod
  def from_batch(
      cls,
      losses: Float[Array, 'sequences positions'],
      scored: Bool[Array, 'sequences positions'],
      *,
      clean: Float[Array, 'sequences positions'] | None = None,
  ) -> 'SequenceLosses':
    """Returns the sums of the losses, or of losses - clean, where `scored`.

    The subtraction is token by token, because small differences between large
    float32 sums would be lost to rounding.
    """
    if clean is not None:
      losses = losses - clean
    return cls(jnp.where(scored, losses, 0).sum(-1), scored.sum(-1))

  def average(self) -> metrics.Average:
    """Returns the mean loss as a mergeable record, on the host."""
    return metrics.Average.from_sums(
        np.asarray(self.total), np.asarray(self.tokens)
    )


class Downstream(NamedTuple):
  """The clean loss, and the increases over it caused by splices."""

  clean: metrics.Average
  spliced: metrics.Average  # Increase by the SAE's reconstruction.
  zero: metrics.Average  # Increase by zeros.
  mean: metrics.Average  # Increase by the mean activation.

  @classmethod
  def empty(cls) -> 'Downstream':
    """Returns the record of no sequence."""
    return cls(*[metrics.Average.empty()] * 4)

  def merge(self, other: 'Downstream') -> 'Downstream':
    """Returns the record of both sets of sequences."""
    return metrics.add(self, other)

  def compute(self) -> dict[str, Any]:
    """Returns losses, delta loss with standard error, and loss recovered."""
    clean, delta = self.clean.mean, self.spliced.mean
    return {
        'delta_loss': delta,
        'delta_loss_stderr': self.spliced.stderr,
        'loss_clean': clean,
        'loss_spliced': clean + delta,
        'loss_zero_ablation': clean + self.zero.mean,
        'loss_mean_ablation': clean + self.mean.mean,
        'loss_recovered': 1 - metrics.ratio(delta, self.zero.mean),
        'loss_recovered_mean': 1 - metrics.ratio(delta, self.mean.mean),
        'tokens_delta_loss': self.clean.count,
    }
