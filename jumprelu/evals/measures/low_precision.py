"""Delta loss of an SAE in bfloat16, and the part of it due to rounding.

Weights, inputs and latents of the SAE are rounded to bfloat16. Matrix products
accumulate in float32, as matrix units do, and the reconstruction has the
language model's dtype. In figure 10 of Gemma Scope (arXiv 2408.05147) the
language model is in bfloat16 as well; to compare with it, evaluate with
--lm_dtype=bfloat16.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import metrics
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals.measures import context as context_lib


class Rounding(NamedTuple):
  """Increases of the loss: by the rounded SAE, and by its rounding alone."""

  rounded: metrics.Average  # Increase over the clean loss.
  cost: metrics.Average  # Increase over the loss with the float32 SAE.

  def merge(self, other: 'Rounding') -> 'Rounding':
    """Returns the record of both sets of sequences."""
    return metrics.add(self, other)

  def compute(self) -> dict[str, Any]:
    """Returns the delta loss in bfloat16, and the part due to rounding."""
    return {
        'delta_loss_bfloat16': self.rounded.mean,
        'bfloat16_cost': self.cost.mean,
        'bfloat16_cost_stderr': self.cost.stderr,
    }


def rounded(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns the parameters in bfloat16, with unchanged sharding."""
  return {name: x.astype(jnp.bfloat16) for name, x in params.items()}


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on `context.text`, the text of the second pass."""
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
