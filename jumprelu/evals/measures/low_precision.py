"""What rounding an SAE to bfloat16 costs: its delta loss, beside the exact one.

Weights, inputs, latents and reconstruction are rounded; sums within a matrix
product stay in float32, as matrix units keep them. The language model is left
as it is (Gemma Scope, arXiv 2408.05147, figure 10, rounds both: evaluate with
--lm_dtype=bfloat16 for that).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import metrics
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals.measures import context as context_lib


class Rounding(NamedTuple):
  """What a rounded SAE, and rounding alone, add to the loss."""

  rounded: metrics.Average  # Above the clean loss.
  cost: metrics.Average  # Above the loss with the exact SAE.

  def merge(self, other: 'Rounding') -> 'Rounding':
    """Returns the record of both lots of sequences."""
    return metrics.add(self, other)

  def compute(self) -> dict[str, Any]:
    """Returns the delta loss in bfloat16, and what of it is rounding."""
    return {
        'delta_loss_bfloat16': self.rounded.mean,
        'bfloat16_cost': self.cost.mean,
        'bfloat16_cost_stderr': self.cost.stderr,
    }


def rounded(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns parameters in bfloat16, on the devices where they lie."""
  return {name: x.astype(jnp.bfloat16) for name, x in params.items()}


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on the text of the losses."""
  mesh = context.text.mesh
  losses = corpus_passes.losses_of(context.model, context.means, mesh=mesh)

  def step(tokens):
    batch = context.forward(tokens)
    clean = corpus_passes.clean_of(losses, batch, mesh=mesh)

    def of_member(member):
      small = member._replace(params=rounded(member.params))
      exact, cheap = (
          losses[member.target](
              batch,
              corpus_passes.call_of(m, batch, mesh=mesh)(
                  jitted.reconstruct, dtype=dtype
              ),
          )
          for m, dtype in ((member, jnp.float32), (small, jnp.bfloat16))
      )
      return tuple(
          jitted.sequence_losses(cheap, batch, clean=base, mesh=mesh)
          for base in (clean[member.target], exact)
      )

    return list(map(of_member, context.members))

  total = corpus_passes.merge_over(
      context.text,
      step,
      'evaluate: bfloat16',
      finish=lambda parts: Rounding(*(part.average() for part in parts)),
  )
  return context_lib.Measured([record.compute() for record in total])
