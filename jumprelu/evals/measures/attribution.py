"""Attribution with error nodes: how much of an effect the SAE does not hold.

At each kept position the target is x = sum_j f_j W_dec_j + affine + error, where
affine is the decoder bias (and the skip of a transcoder) and the error is what
the SAE leaves out. With g the gradient at x, in the clean model, of a number of
this token or of a later one, each term has a linear effect on the number: its
inner product with g, by which the number falls when the term is removed, as far
as the gradient holds (attribution patching to zero; sparse feature circuits,
Marks et al., arXiv 2403.19647, section 3). They add up to g . x exactly. Latents
and errors are nodes, one of each a position:

  error share = sum |g . error| / (sum |g . error| + sum |f_j g . W_dec_j|)

over kept positions and tokens. It is 0 for an SAE that leaves nothing out and 1
for one whose latents are silent. Errors are one node where latents are many
that may cancel: the share falls with L0, whatever the fidelity; compare it at
one L0.

The number is the next token's logit less the mean of all logits (that of
`uniformity`), or its loss; its tokens are the same as there. Beside the errors'
linear effect stands what removing all of them really does, so that it can be
seen how far the gradient holds.
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import ratio_errors, target_metric, uniformity


class Effects(NamedTuple):
  """Linear effects of one batch, summed over the nodes of each sequence."""

  error_size: Float[Array, ' sequences']  # Of absolute values.
  latents_size: Float[Array, ' sequences']
  error: Float[Array, ' sequences']
  latents: Float[Array, ' sequences']
  affine: Float[Array, ' sequences']
  total: Float[Array, ' sequences']  # g . x.
  # By how much the number falls when the errors are removed.
  removed: Float[Array, ' sequences']
  tokens: Float[Array, ' sequences']


def to_counts(parts: Sequence[Effects]) -> ratio_errors.Counts:
  """Returns the mergeable record, on the host; a group is a sequence."""
  by_token = [
      np.stack([np.asarray(x, np.float64) for x in p], 1) for p in parts
  ]
  return ratio_errors.Counts.from_groups(np.sum(by_token, axis=0))


@functools.partial(jax.jit, static_argnames=('sae', 'mesh'))
def effects(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    targets: Float[Array, 'sequences positions target_model'],
    *,
    gradient: Float[Array, 'sequences positions target_model'],
    keep: Bool[Array, 'sequences positions'],
    removed: Float[Array, ' sequences'],
    drawn: Bool[Array, ' sequences'],
    sae: Any,
    mesh: Any = None,
) -> Effects:
  """Returns the effects on one token of each sequence that has one."""

  def run(chunk):
    inputs, targets, gradient, keep = chunk
    inputs, targets, gradient = (
        jitted.kept_rows(x, keep) for x in (inputs, targets, gradient)
    )
    latents = jitted.encode(sae, params, inputs, mesh=mesh)
    decoded = sae.decode(params, latents, inputs)
    affine = sae.decode(params, jnp.zeros_like(latents), inputs)
    by_latent = latents * jnp.matmul(
        gradient, params['W_dec'].T, precision='highest'
    )

    def along(x):
      return (x * gradient).sum(-1)

    error = along(targets - decoded)
    return (
        jnp.abs(error).sum(-1),
        jnp.abs(by_latent).sum((-2, -1)),
        error.sum(-1),
        by_latent.sum((-2, -1)),
        along(affine).sum(-1),
        along(targets).sum(-1),
    )

  parts = jitted.by_chunks(
      run, sae.width, inputs, targets, gradient, keep, mesh=mesh
  )
  sums = [x.sum(0) for x in parts]
  found = Effects(*[*sums, removed, jnp.ones_like(removed)])
  found = jax.tree.map(lambda x: jnp.where(drawn, x, 0), found)
  return jitted.replicate(found, mesh)


def compute(counts: ratio_errors.Counts) -> dict[str, Any]:
  """Returns the error share, and the mean effects on a token."""
  one = {name: np.eye(len(Effects._fields))[i] for i, name in _numbered()}
  share = ratio_errors.Ratio(
      one['error_size'], one['error_size'] + one['latents_size']
  )
  value, error = counts.estimate(share)
  found = {
      'attribution_error_share': value,
      'attribution_error_share_stderr': error,
  }
  for name in ('total', 'latents', 'affine', 'error'):
    mean = ratio_errors.Ratio(one[name], one['tokens'])
    found[f'attribution_{name}'] = counts.estimate(mean)[0]
  removed = ratio_errors.Ratio(one['removed'], one['tokens'])
  value, error = counts.estimate(removed)
  return found | {
      'attribution_error_removed': value,
      'attribution_error_removed_stderr': error,
      'tokens_attribution': int(counts.sums @ one['tokens']),
  }


def _numbered():
  return enumerate(Effects._fields)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on a few tokens of each sequence."""
  mesh = context.text.mesh
  by_target = {
      target: target_metric.make(
          context.model,
          target,
          metric=context.settings.attribution.metric,
          mesh=mesh,
      )
      for target in context.means
  }

  def step(tokens):
    batch = context.forward(tokens)
    calls = [
        corpus_passes.call_of(m, batch, mesh=mesh) for m in context.members
    ]
    values = [call(jitted.reconstruct) for call in calls]
    found: list[Any] = [[] for _ in context.members]
    for at, drawn in uniformity.draws(batch):
      clean = {t: make.gradient(batch, at) for t, make in by_target.items()}
      for parts, call, value, member in zip(
          found, calls, values, context.members, strict=True
      ):
        number, gradient = clean[member.target]
        spliced = by_target[member.target].value(batch, value, at)
        parts.append(
            call(
                effects,
                gradient=gradient,
                removed=number - spliced,
                drawn=drawn,
            )
        )
    return found

  total = corpus_passes.merge_over(
      context.text, step, 'evaluate: attribution', finish=to_counts
  )
  said = {'attribution_metric': context.settings.attribution.metric}
  return context_lib.Measured([said | compute(counts) for counts in total])
