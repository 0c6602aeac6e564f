"""Attribution with error nodes: the share of an effect that an SAE misses.

At each kept position the target is x = sum_j f_j W_dec_j + affine + error,
where affine is the decoder bias (plus the skip connection of a transcoder) and
error is the reconstruction error. Let g be the gradient at x, in the clean
model, of a metric of this token or of a later one. The linear effect of a term
is its inner product with g. To first order, the metric falls by this amount if
the term is removed (attribution patching to zero; sparse feature circuits,
Marks et al., arXiv 2403.19647, section 3). The effects of all terms add up to
g . x exactly. A node is one latent, or the error, at one position. Summed over
the nodes of all kept positions, for all measured tokens,

  error share = sum |g . error| / (sum |g . error| + sum |f_j g . W_dec_j|).

The share is 0 for an SAE without error and 1 for an SAE whose latents are
silent. The error of a position is a single node, while the effects of its many
latents may cancel. At equal fidelity the share therefore falls as L0 rises, so
it should be compared at equal L0.

The metric is the next token's logit minus the mean of all logits (as in
`uniformity`), or the next token's loss. It is measured at the tokens that
`uniformity` draws. As a check of the linear approximation, the columns also
have the actual fall of the metric when all errors are removed, that is, when
the reconstruction replaces the target.
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
from jumprelu.saes import base


class Effects(NamedTuple):
  """Effects in one batch, summed over the kept positions of each sequence."""

  error_size: Float[Array, ' sequences']  # Of |g . error|.
  latents_size: Float[Array, ' sequences']  # Of |f_j g . W_dec_j|, over j too.
  error: Float[Array, ' sequences']  # Of g . error.
  latents: Float[Array, ' sequences']  # Of f_j g . W_dec_j, over j too.
  affine: Float[Array, ' sequences']  # Of g . affine.
  total: Float[Array, ' sequences']  # Of g . x.
  # Actual fall of the metric when all errors are removed.
  removed: Float[Array, ' sequences']
  tokens: Float[Array, ' sequences']


def to_counts(parts: Sequence[Effects]) -> ratio_errors.Counts:
  """Returns the mergeable record on the host, with sequences as groups.

  Each of `parts` has the effects on another token of the same sequences.
  """
  by_token = [
      np.stack([np.asarray(x, np.float64) for x in p], 1) for p in parts
  ]
  return ratio_errors.Counts.from_groups(np.sum(by_token, axis=0))


class Terms(NamedTuple):
  """The effect of each part of a reconstruction at each position.

  Their sum is the gradient times the target activations.
  """

  latents: Float[Array, '*batch latents']
  # The decoder's bias, and the skip term of a transcoder.
  affine: Float[Array, '*batch']
  error: Float[Array, '*batch']


def terms(
    sae: base.Sae,
    params: Any,
    inputs: Float[Array, '*batch model'],
    targets: Float[Array, '*batch target_model'],
    *,
    latents: Float[Array, '*batch latents'],
    gradient: Float[Array, '*batch target_model'],
) -> Terms:
  """Returns the effects on a metric with this gradient at the targets."""
  decoded = sae.decode(params, latents, inputs)
  affine = sae.decode(params, jnp.zeros_like(latents), inputs)
  along_rows = jnp.matmul(gradient, params['W_dec'].T, precision='highest')
  return Terms(
      latents * along_rows,
      (affine * gradient).sum(-1),
      ((targets - decoded) * gradient).sum(-1),
  )


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
    sae: base.Sae,
    mesh: jax.sharding.Mesh | None = None,
) -> Effects:
  """Returns the effects on the metric of one token per sequence.

  The effects are 0 where `drawn` is false. `gradient` is that of the clean
  metric, and `removed` the metric's fall when all errors are removed.
  """

  def run(chunk):
    inputs, targets, gradient, keep = chunk
    inputs, targets, gradient = (
        jitted.kept_rows(x, keep) for x in (inputs, targets, gradient)
    )
    latents = jitted.encode(sae, params, inputs, mesh=mesh)
    parts = terms(
        sae, params, inputs, targets, latents=latents, gradient=gradient
    )
    return (
        jnp.abs(parts.error).sum(-1),
        jnp.abs(parts.latents).sum((-2, -1)),
        parts.error.sum(-1),
        parts.latents.sum((-2, -1)),
        parts.affine.sum(-1),
        (targets * gradient).sum(-1).sum(-1),
    )

  parts = jitted.by_chunks(
      run, sae.width, inputs, targets, gradient, keep, mesh=mesh
  )
  sums = [x.sum(0) for x in parts]
  record = Effects(*[*sums, removed, jnp.ones_like(removed)])
  record = jax.tree.map(lambda x: jnp.where(drawn, x, 0), record)
  return jitted.replicate(record, mesh)


def compute(counts: ratio_errors.Counts) -> dict[str, Any]:
  """Returns the error share, and the mean effects per token."""
  fields = Effects._fields
  unit: dict[str, Any] = dict(zip(fields, np.eye(len(fields)), strict=True))
  share = ratio_errors.Ratio(
      unit['error_size'], unit['error_size'] + unit['latents_size']
  )
  value, error = counts.estimate(share)
  columns = {
      'attribution_error_share': value,
      'attribution_error_share_stderr': error,
  }
  for name in ('total', 'latents', 'affine', 'error'):
    mean = ratio_errors.Ratio(unit[name], unit['tokens'])
    columns[f'attribution_{name}'] = counts.estimate(mean)[0]
  removed = ratio_errors.Ratio(unit['removed'], unit['tokens'])
  value, error = counts.estimate(removed)
  return columns | {
      'attribution_error_removed': value,
      'attribution_error_removed_stderr': error,
      'tokens_attribution': int(counts.sums @ unit['tokens']),
  }


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
    by_member: list[Any] = [[] for _ in context.members]
    for at, drawn in uniformity.draws(batch):
      clean = {t: make.gradient(batch, at) for t, make in by_target.items()}
      for parts, call, value, member in zip(
          by_member, calls, values, context.members, strict=True
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
    return by_member

  total = corpus_passes.merge_over(
      context.text, step, 'evaluate: attribution', finish=to_counts
  )
  metric = {'attribution_metric': context.settings.attribution.metric}
  return context_lib.Measured([metric | compute(counts) for counts in total])
