"""KL divergence between clean and spliced predictions.

The measure is KL(clean || spliced) of the next token's distribution, in nats,
averaged over kept positions. The same divergence is measured for zero ablation,
and kl_recovered = 1 - spliced / ablated. Divergences are computed from
log-probabilities, so that a probability that underflows to 0 adds 0 and not
NaN.
"""

from collections.abc import Callable, Iterable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import lm, metrics
from jumprelu.evals import corpus_passes, delta_loss, jitted, splice
from jumprelu.evals.measures import context as context_lib


class Divergence(NamedTuple):
  """KL divergences from clean to spliced and to zero-ablated predictions."""

  spliced: metrics.Average
  zero: metrics.Average

  def merge(self, other: 'Divergence') -> 'Divergence':
    """Returns the record of both sets of sequences."""
    return metrics.add(self, other)

  def compute(self) -> dict[str, Any]:
    """Returns the mean divergences and the share recovered."""
    kl, zero = self.spliced.mean, self.zero.mean
    return {
        'kl': kl,
        'kl_stderr': self.spliced.stderr,
        'kl_zero_ablation': zero,
        'kl_recovered': 1 - metrics.ratio(kl, zero),
        'tokens_kl': self.spliced.count,
    }


def comparer(
    model: lm.LanguageModel,
    targets: Iterable[lm.Tap],
    *,
    mesh: jax.sharding.Mesh | None = None
) -> Callable[[splice.Batch], Callable[..., lm.Comparison]]:
  """Returns a function that maps a batch to a function `compare_splice`.

  `compare_splice(target, value)` compares the clean predictions for the batch
  with the predictions when `value` is spliced in at `target`. The optional
  argument `where` is a batch with another keep mask for the splice.

  The clean pass of each target runs once per batch. It uses the program of the
  spliced passes, so that the two differ by the splice alone.
  """

  def pass_of(target):

    @jax.jit
    def run(params, batch, value):
      return splice.hidden(
          model, params, batch, target=target, value=value, mesh=mesh
      )

    return functools.partial(run, model.params)

  @jax.jit
  def compare(params, clean, changed, tokens):
    return lm.compare(model, params, clean, changed, tokens=tokens, mesh=mesh)

  passes_by_target = {target: pass_of(target) for target in targets}

  def comparison(batch):
    clean = corpus_passes.clean_of(passes_by_target, batch, mesh=mesh)

    def compare_splice(target, value, *, where=batch):
      changed = passes_by_target[target](where, value)
      return compare(model.params, clean[target], changed, batch.tokens)

    return compare_splice

  return comparison


@functools.partial(jax.jit, static_argnames=('mesh',))
def _sums(divergence, keep, *, mesh):
  sums = delta_loss.SequenceLosses.from_batch(divergence, keep)
  return jitted.replicate(sums, mesh)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on the text of the losses."""
  mesh = context.text.mesh
  comparisons = comparer(context.model, context.means, mesh=mesh)

  def step(tokens):
    batch = context.forward(tokens)
    compare = comparisons(batch)

    def sums(target, value):
      divergence = compare(target, value).divergence
      return _sums(divergence, batch.keep, mesh=mesh)

    zero = {
        target: sums(target, jnp.zeros_like(batch.values[target]))
        for target in context.means
    }
    return [
        (
            sums(
                member.target,
                corpus_passes.call_of(member, batch, mesh=mesh)(
                    jitted.reconstruct
                ),
            ),
            zero[member.target],
        )
        for member in context.members
    ]

  total = corpus_passes.merge_over(
      context.text,
      step,
      'evaluate: KL',
      finish=lambda parts: Divergence(*(part.average() for part in parts)),
  )
  return context_lib.Measured([record.compute() for record in total])
