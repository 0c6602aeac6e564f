"""r_L0: how evenly the active latents of a token share in what it does.

For a token, y = latents * (W_dec @ gradient), the gradient being that of the
next token's logit minus the mean of all logits with respect to the target
activation of that same token, in the clean model; with p = |y| / sum |y| and
entropy S,

  r_L0 = exp(S(p)) / ||y||_0,  between 1 / ||y||_0 and 1

(Gemma Scope, arXiv 2408.05147, section 4 and figure 16.) One backward pass
gives each sequence one token's own gradient. The tokens are drawn from a hash of
the sequence's ids, so they do not depend on batches. A token without an active
latent has no r_L0 and is not counted.
"""

from collections.abc import Iterator
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.evals import corpus_passes, jitted, splice
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import target_metric

# Tokens that are drawn from each sequence.
_DRAWS = 4


def draw(
    tokens: Int[Array, 'sequences positions'],
    scored: Bool[Array, 'sequences positions'],
    draws: int,
) -> tuple[Int[Array, 'sequences draws'], Bool[Array, 'sequences draws']]:
  """Draws scored positions of each sequence, and says which are scored.

  They differ from each other; a sequence may have fewer than are drawn.
  """
  powers = 1_000_003 ** np.arange(tokens.shape[1], dtype=np.uint64)
  weights = (powers % 2**32).astype(np.uint32)
  hashes = (tokens.astype(jnp.uint32) * weights[None]).sum(-1, dtype=jnp.uint32)

  def order(number):
    return jax.random.uniform(jax.random.key(number), tokens.shape[1:])

  score = jnp.where(scored, jax.vmap(order)(hashes), -1)
  found, positions = lax.top_k(score, draws)
  return positions, found >= 0


def draws(
    batch: splice.Batch,
) -> Iterator[tuple[Int[Array, ' sequences'], Bool[Array, ' sequences']]]:
  """Yields one position of each sequence at a time, and where it was drawn.

  Where none was drawn it is any that has a next one.
  """
  last = batch.tokens.shape[1] - 1
  positions, drawn = draw(batch.tokens, batch.scored, min(_DRAWS, last))
  for i in range(positions.shape[1]):
    yield jnp.minimum(positions[:, i], last - 1), drawn[:, i]


def ratio(
    attribution: Float[Array, '*batch latents'],
) -> Float[Array, '*batch']:
  """Returns r_L0 of each row; NaN where nothing is attributed."""
  size = jnp.abs(attribution)
  share = size / size.sum(-1, keepdims=True)
  entropy = -jax.scipy.special.xlogy(share, share).sum(-1)
  return jnp.exp(entropy) / (size > 0).sum(-1)


class Uniformity(NamedTuple):
  """One batch's r_L0, summed a sequence."""

  total: Float[Array, ' sequences']
  tokens: Int[Array, ' sequences']

  @classmethod
  def from_batch(
      cls,
      attribution: Float[Array, 'sequences latents'],
      drawn: Bool[Array, ' sequences'],
  ) -> 'Uniformity':
    """Takes the attribution of one token of each sequence."""
    found = ratio(attribution)
    counted = drawn & jnp.isfinite(found)
    return cls(jnp.where(counted, found, 0), counted.astype(jnp.int32))


@functools.partial(jax.jit, static_argnames=('sae', 'mesh'))
def _attribute(params, inputs, gradient, *, at, drawn, sae, mesh):
  inputs, gradient = (x[jnp.arange(len(at)), at] for x in (inputs, gradient))
  inputs = inputs.astype(jnp.float32)
  inputs = jnp.where(drawn[:, None], inputs, 0)
  latents = sae.encode(params, inputs)
  found = Uniformity.from_batch(latents * (gradient @ params['W_dec'].T), drawn)
  return jitted.replicate(found, mesh)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on a few tokens of each sequence."""
  mesh = context.text.mesh
  by_target = {
      target: target_metric.make(context.model, target, mesh=mesh)
      for target in context.means
  }

  def step(tokens):
    batch = context.forward(tokens)
    found: list[Any] = [[] for _ in context.members]
    for at, drawn in draws(batch):
      gradient = {
          t: make.gradient(batch, at)[1] for t, make in by_target.items()
      }
      for parts, member in zip(found, context.members, strict=True):
        part = _attribute(
            member.params,
            batch.values[member.source],
            gradient[member.target],
            at=at,
            drawn=drawn,
            sae=member.sae,
            mesh=mesh,
        )
        parts.append(part)
    return found

  def finish(parts):
    totals = np.sum([np.asarray(p.total, np.float64) for p in parts], 0)
    counts = np.sum([np.asarray(p.tokens) for p in parts], 0)
    return metrics.Average.from_sums(totals, counts)

  total = corpus_passes.merge_over(
      context.text, step, 'evaluate: uniformity', finish=finish
  )
  return context_lib.Measured(
      [
          {'r_l0': a.mean, 'r_l0_stderr': a.stderr, 'tokens_r_l0': a.count}
          for a in total
      ]
  )
