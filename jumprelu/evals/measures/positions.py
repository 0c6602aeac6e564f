"""Profiles over the position in a document: L0, FVU and delta loss.

(Gemma Scope, arXiv 2408.05147, figures 3 and 15.) A position counts from its
document's BOS, which is 0: it is how far back attention can look, however
documents are packed into rows. The FVU's denominator at a position is about
the mean of all positions, so that the pooled sums give the FVU of the row.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Int, Num
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals.measures import context as context_lib


class Positions(NamedTuple):
  """Sums over tokens by position; `scored` ones have a delta loss."""

  tokens: Num[Array, ' positions']
  active: Num[Array, ' positions']
  residual: Num[Array, ' positions']  # of ||y - yhat||^2
  residual_squared: Num[Array, ' positions']
  spread: Num[Array, ' positions']  # of ||y - ybar||^2
  scored: Num[Array, ' positions']
  delta: Num[Array, ' positions']
  delta_squared: Num[Array, ' positions']

  @classmethod
  def from_batch(
      cls,
      found: jitted.ByPosition,
      spread: Float[Array, 'sequences positions'],
      delta: Float[Array, 'sequences positions'],
      *,
      positions: Int[Array, 'sequences positions'],
      keep: Bool[Array, 'sequences positions'],
      scored: Bool[Array, 'sequences positions'],
  ) -> 'Positions':
    """Sums one batch; what is not kept, or not scored, may hold anything."""

    def by_position(x, mask):
      return jax.ops.segment_sum(
          jnp.where(mask, x, 0).ravel(),
          positions.ravel(),
          num_segments=positions.shape[1],
      )

    return cls(
        by_position(jnp.ones_like(positions), keep),
        by_position(found.l0, keep),
        by_position(found.residual, keep),
        by_position(jnp.square(found.residual), keep),
        by_position(spread, keep),
        by_position(jnp.ones_like(positions), scored),
        by_position(delta, scored),
        by_position(jnp.square(delta), scored),
    )

  def merge(self, other: 'Positions') -> 'Positions':
    """Returns the sums over both lots of tokens."""
    return metrics.add(self, other)

  def compute(self) -> list[dict[str, Any]]:
    """Returns a row for each position that was seen.

    Standard errors take tokens of one position as independent: they lie in
    different documents.
    """
    error, error_stderr = _mean(
        self.residual, self.residual_squared, self.tokens
    )
    delta, delta_stderr = _mean(self.delta, self.delta_squared, self.scored)
    columns = {
        'tokens': self.tokens,
        'l0': metrics.ratio(self.active, self.tokens),
        'squared_error': error,
        'squared_error_stderr': error_stderr,
        'fvu': metrics.ratio(self.residual, self.spread),
        'tokens_delta_loss': self.scored,
        'delta_loss': delta,
        'delta_loss_stderr': delta_stderr,
    }
    return [
        {'position': int(p)} | {k: v[p] for k, v in columns.items()}
        for p in np.flatnonzero(self.tokens)
    ]


def _mean(total, squared, count):
  """Returns means and their standard errors, NaN of fewer than two tokens."""
  mean = metrics.ratio(total, count)
  squares = np.maximum(squared - count * mean**2, 0)
  variance = metrics.ratio(squares, count - 1)
  return mean, np.sqrt(metrics.ratio(variance, count))


@functools.partial(jax.jit, static_argnames=('mesh',))
def _sums(found, values, mean, delta, *, batch, mesh):
  centred = values.astype(jnp.float32) - mean[None, None]
  record = Positions.from_batch(
      found,
      jnp.square(centred).sum(-1),
      delta,
      positions=batch.positions,
      keep=batch.keep,
      scored=batch.scored,
  )
  return jitted.replicate(record, mesh)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures the profiles of all members on the text of the losses."""
  mesh = context.text.mesh
  losses = corpus_passes.losses_of(context.model, context.means, mesh=mesh)

  def step(tokens):
    batch = context.forward(tokens)
    clean = corpus_passes.clean_of(losses, batch, mesh=mesh)
    return [of_member(batch, member, clean) for member in context.members]

  def of_member(batch, member, clean):
    call = corpus_passes.call_of(member, batch, mesh=mesh)
    delta = losses[member.target](batch, call(jitted.reconstruct))
    return _sums(
        call(jitted.by_position),
        batch.values[member.target],
        np.asarray(context.means[member.target], np.float32),
        delta - clean[member.target],
        batch=batch,
        mesh=mesh,
    )

  total = corpus_passes.merge_over(context.text, step, 'evaluate: positions')
  table = [
      {'path': name} | row
      for name, record in zip(context.names, total, strict=True)
      for row in record.compute()
  ]
  return context_lib.Measured([{} for _ in total], table)
