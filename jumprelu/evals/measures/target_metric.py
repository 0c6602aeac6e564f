"""What is attributed: a number of one token, and its gradient at a target.

One backward pass gives each sequence the gradient of one token's own number at
all of its positions.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import lm
from jumprelu.array_typing import Array, Float
from jumprelu.evals import splice


class Objective(NamedTuple):
  """Compiled functions of a batch, a value at the target, and positions.

  `value` returns the number [sequences] of the token at each sequence's
  position, `gradient` the same and its derivatives by the value at the target
  [sequences, positions, target_model], 0 where that is not kept.
  """

  value: Callable[..., Float[Array, ' sequences']]
  gradient: Callable[..., tuple[Array, Array]]


def make(
    model: lm.LanguageModel,
    target: lm.Tap,
    *,
    metric: str = 'logit',
    mesh: Any = None,
) -> Objective:
  """Makes the objective of splices at `target`.

  `metric` is logit, that of the next token less the mean of all logits, or
  loss, the next token's in nats.
  """

  def numbers(value, params, batch, at):
    hidden = splice.hidden(
        model, params, batch, target=target, value=value, mesh=mesh
    )
    sequences = jnp.arange(len(at))
    logits = lm.unembed(model, params, hidden[sequences, at])
    correct = logits[sequences, batch.tokens[sequences, at + 1]]
    if metric == 'loss':
      return jax.nn.logsumexp(logits, axis=-1) - correct
    return correct - logits.mean(-1)

  @jax.jit
  def value_of(params, batch, value, at):
    return numbers(value, params, batch, at)

  @jax.jit
  def gradient_of(params, batch, at):

    def total(value):
      found = numbers(value, params, batch, at)
      return found.sum(), found

    clean = batch.values[target].astype(jnp.float32)
    gradient, found = jax.grad(total, has_aux=True)(clean)
    return found, gradient

  return Objective(
      functools.partial(value_of, model.params),
      functools.partial(gradient_of, model.params),
  )
