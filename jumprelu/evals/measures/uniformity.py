"""r_L0: how evenly a token's effect is spread over its active latents.

For a token, y = latents * (W_dec @ gradient). The gradient is that of the next
token's logit minus the mean of all logits, with respect to the target
activation of the same token in the clean model. With p = |y| / sum |y| and
entropy S,

  r_L0 = exp(S(p)) / ||y||_0,  between 1 / ||y||_0 and 1

(Gemma Scope, arXiv 2408.05147, section 4 and figure 16). Only a few random
tokens of each sequence are measured, because a backward pass is needed for each
(one pass serves all sequences of a batch). The random seed of a sequence is a
hash of its ids, so the choice of tokens does not depend on the batch. Tokens
without an active latent have no r_L0 and are not counted.
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

# Number of tokens drawn from each sequence.
_DRAWS = 4


def draw(
    tokens: Int[Array, 'sequences positions'],
    scored: Bool[Array, 'sequences positions'],
    draws: int,
) -> tuple[Int[Array, 'sequences draws'], Bool[Array, 'sequences draws']]:
  """Returns random positions of each sequence, and whether they are scored.

  The positions are distinct. Scored positions come first. Unscored ones
  follow only in a sequence with fewer than `draws` scored positions.
  """
  powers = 1_000_003 ** np.arange(tokens.shape[1], dtype=np.uint64)
  weights = (powers % 2**32).astype(np.uint32)
  hashes = (tokens.astype(jnp.uint32) * weights[None]).sum(-1, dtype=jnp.uint32)

  def order(number):
    return jax.random.uniform(jax.random.key(number), tokens.shape[1:])

  score = jnp.where(scored, jax.vmap(order)(hashes), -1)
  scores, positions = lax.top_k(score, draws)
  return positions, scores >= 0


def draws(
    batch: splice.Batch,
) -> Iterator[tuple[Int[Array, ' sequences'], Bool[Array, ' sequences']]]:
  """Yields one position of each sequence at a time, and whether it is scored.

  If it is not scored, the position is arbitrary, but never the last one.
  """
  last = batch.tokens.shape[1] - 1
  positions, drawn = draw(batch.tokens, batch.scored, min(_DRAWS, last))
  for i in range(positions.shape[1]):
    yield jnp.minimum(positions[:, i], last - 1), drawn[:, i]


def ratio(
    attribution: Float[Array, '*batch latents'],
) -> Float[Array, '*batch']:
  """Returns r_L0 of each row, or NaN if the row is zero."""
  size = jnp.abs(attribution)
  share = size / size.sum(-1, keepdims=True)
  entropy = -jax.scipy.special.xlogy(share, share).sum(-1)
  return jnp.exp(entropy) / (size > 0).sum(-1)


class Uniformity(NamedTuple):
  """r_L0 of one token of each sequence of a batch."""

  total: Float[Array, ' sequences']
  tokens: Int[Array, ' sequences']

  @classmethod
  def from_batch(
      cls,
      attribution: Float[Array, 'sequences latents'],
      drawn: Bool[Array, ' sequences'],
  ) -> 'Uniformity':
    """Returns the record of the attribution for one token of each sequence."""
    r_l0 = ratio(attribution)
    counted = drawn & jnp.isfinite(r_l0)
    return cls(jnp.where(counted, r_l0, 0), counted.astype(jnp.int32))


@functools.partial(jax.jit, static_argnames=('sae', 'mesh'))
def _attribute(params, inputs, gradient, *, at, drawn, sae, mesh):
  inputs, gradient = (x[jnp.arange(len(at)), at] for x in (inputs, gradient))
  inputs = inputs.astype(jnp.float32)
  inputs = jnp.where(drawn[:, None], inputs, 0)
  latents = sae.encode(params, inputs)
  attribution = latents * (gradient @ params['W_dec'].T)
  return jitted.replicate(Uniformity.from_batch(attribution, drawn), mesh)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on a few tokens of each sequence."""
  mesh = context.text.mesh
  by_target = {
      target: target_metric.make(context.model, target, mesh=mesh)
      for target in context.means
  }

  def step(tokens):
    batch = context.forward(tokens)
    by_member: list[Any] = [[] for _ in context.members]
    for at, drawn in draws(batch):
      gradient = {
          t: make.gradient(batch, at)[1] for t, make in by_target.items()
      }
      for parts, member in zip(by_member, context.members, strict=True):
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
    return by_member

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
