"""L0, FVU and delta loss by position in the document.

The profiles are those of Gemma Scope (arXiv 2408.05147, figures 3 and 15).
Positions count from the preceding BOS, at position 0. A document that continues
in the next row has another BOS there, so a token at position p can attend to p
earlier tokens, however documents are packed into rows. The FVU's denominator at
a position is the sum of squares about the mean of all positions. The ratio of
the sums over all positions is thus the FVU of the whole text.

Standard errors are over documents, because a document that fills several rows
has several tokens at the same position, which are not independent.
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Int, Num
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals import text as text_lib
from jumprelu.evals.measures import context as context_lib


class Values(NamedTuple):
  """One member's values at each token, which use 16 bytes per token."""

  l0: Num[Array, 'rows positions']
  residual: Float[Array, 'rows positions']  # ||y - yhat||^2
  spread: Float[Array, 'rows positions']  # ||y - ybar||^2
  delta: Float[Array, 'rows positions']  # Delta loss, valid where scored.


class Groups:
  """Groups of tokens with the same position and document.

  Args:
    positions: The position of each token.
    documents: The document number of each token.
    where: The mask of tokens that count.
  """

  def __init__(
      self,
      positions: Int[np.ndarray, 'rows positions'],
      documents: Int[np.ndarray, 'rows positions'],
      where: Bool[np.ndarray, 'rows positions'],
  ):
    self._where, self._length = where, positions.shape[1]
    keys = documents[where].astype(np.int64) * self._length + positions[where]
    keys, self._group_of = np.unique(keys, return_inverse=True)
    self._position_of = keys % self._length
    self._counts = np.bincount(self._group_of, minlength=len(keys))

  def average(
      self,
      values: Num[Array, 'rows positions'] | Num[np.ndarray, 'rows positions'],
  ) -> metrics.Average:
    """Returns averages by position, with standard errors over documents."""
    counts = self._counts
    totals = np.bincount(
        self._group_of,
        np.asarray(values, np.float64)[self._where],
        minlength=len(counts),
    )
    return metrics.Average(
        *(
            np.bincount(self._position_of, x, minlength=self._length)
            for x in (
                np.ones_like(counts),
                counts,
                totals,
                counts**2,
                totals**2,
                totals * counts,
            )
        )
    )


def profile(
    values: Values, kept: Groups, scored: Groups
) -> list[dict[str, Any]]:
  """Returns a row for each position that has kept tokens."""
  error = kept.average(values.residual)
  delta = scored.average(values.delta)
  columns = {
      'tokens': error.count.astype(np.int64),
      'l0': kept.average(values.l0).mean,
      'squared_error': error.mean,
      'squared_error_stderr': error.stderr,
      'fvu': metrics.ratio(error.total, kept.average(values.spread).total),
      'tokens_delta_loss': delta.count.astype(np.int64),
      'delta_loss': delta.mean,
      'delta_loss_stderr': delta.stderr,
  }
  return [
      {'position': int(p)} | {k: v[p] for k, v in columns.items()}
      for p in np.flatnonzero(error.count)
  ]


@functools.partial(jax.jit, static_argnames=('mesh',))
def _values(by_position, values, mean, delta, *, mesh):
  centred = values.astype(jnp.float32) - mean[None, None]
  spread = jnp.square(centred).sum(-1)
  record = Values(by_position.l0, by_position.residual, spread, delta)
  return jitted.replicate(record, mesh)


@functools.partial(jax.jit, static_argnames=('mesh',))
def _masks(batch, *, mesh):
  masks = {
      'positions': batch.positions,
      'kept': batch.keep,
      'scored': batch.scored,
  }
  return jitted.replicate(masks, mesh)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures the profiles of all members on the text of the losses."""
  mesh = context.text.mesh
  losses = corpus_passes.losses_of(context.model, context.means, mesh=mesh)

  def step(tokens):
    batch = context.forward(tokens)
    clean = corpus_passes.clean_of(losses, batch, mesh=mesh)
    members = [of_member(batch, member, clean) for member in context.members]
    return _masks(batch, mesh=mesh), members

  def of_member(batch, member, clean):
    call = corpus_passes.call_of(member, batch, mesh=mesh)
    delta = losses[member.target](batch, call(jitted.reconstruct))
    return _values(
        call(jitted.by_position),
        batch.values[member.target],
        np.asarray(context.means[member.target], np.float32),
        delta - clean[member.target],
        mesh=mesh,
    )

  batches = list(text_lib.over(context.text, step, 'evaluate: positions'))
  # Rows of padding at the end of the last batch are dropped.
  rows = len(context.text.rows)
  masks, members = jax.tree.map(
      lambda *parts: np.concatenate(parts)[:rows], *batches
  )
  kept, scored = _groups(masks, text_lib.documents(context.text))
  table = [
      {'path': name} | row
      for name, values in zip(context.names, members, strict=True)
      for row in profile(values, kept, scored)
  ]
  return context_lib.Measured([{} for _ in members], table)


def _groups(
    masks: Mapping[str, np.ndarray], documents: np.ndarray
) -> tuple[Groups, Groups]:
  """Returns the groups of kept tokens, and those of scored tokens."""
  kept, scored = (
      Groups(masks['positions'], documents, masks[name])
      for name in ('kept', 'scored')
  )
  return kept, scored
