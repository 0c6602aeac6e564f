"""The metric of one token per sequence, and its gradient at a target.

One backward pass computes the gradients for all sequences, because the metric
of a sequence's token does not depend on other sequences.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import lm
from jumprelu.array_typing import Array, Float
from jumprelu.evals import splice
from jumprelu.lm import loss


class Objective(NamedTuple):
  """Compiled functions for the metric and for its gradient.

  `value(batch, value, at)` returns the metric [sequences] of the token at
  position `at` of each sequence, with `value` spliced in at the target.
  `gradient(batch, at)` returns the clean metric, and its gradient with respect
  to the target [sequences, positions, target_model], which is 0 at positions
  that are not kept.
  """

  value: Callable[..., Float[Array, ' sequences']]
  gradient: Callable[..., tuple[Array, Array]]


def make(
    model: lm.LanguageModel,
    target: lm.Tap,
    *,
    metric: str = 'logit',
    mesh: jax.sharding.Mesh | None = None,
) -> Objective:
  """Returns the objective of splices at `target`.

  The metric 'logit' is the next token's logit minus the mean of all logits;
  'loss' is the loss of the next token in nats.
  """

  def metric_values(value, params, batch, at):
    hidden = splice.hidden(
        model, params, batch, target=target, value=value, mesh=mesh
    )
    sequences = jnp.arange(len(at))
    logits = lm.unembed(model, params, hidden[sequences, at])
    following = batch.tokens[sequences, at + 1]
    if metric == 'loss':
      return loss.of_logits(logits, following)
    return logits[sequences, following] - logits.mean(-1)

  @jax.jit
  def value_of(params, batch, value, at):
    return metric_values(value, params, batch, at)

  @jax.jit
  def gradient_of(params, batch, at):

    def total(value):
      metrics = metric_values(value, params, batch, at)
      return metrics.sum(), metrics

    clean = batch.values[target].astype(jnp.float32)
    gradient, metrics = jax.grad(total, has_aux=True)(clean)
    return metrics, gradient

  return Objective(
      functools.partial(value_of, model.params),
      functools.partial(gradient_of, model.params),
  )
