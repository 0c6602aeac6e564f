"""SAEBench's core metrics, under SAEBench's names and with its quirks.

These metrics are for comparison with published tables (arXiv 2503.09532). They
follow SAEBench's commit 8042bb3, and `tests/evals/peers_test.py` compares them
with release 0.6.0. The regular columns of an evaluation do not have the
following quirks:

* The ablation puts zeros at every position, including BOS and padding, and
  scores are relative to this ablation. The splice acts only at kept positions,
  as in published runs.
* Losses include kept positions whose next token is in another document.
* `explained_variance` uses the square of the mean square instead of the squared
  mean. It is therefore taken about zero, and depends on the activations' scale.
* `explained_variance_legacy`, the metric in the SAEBench paper, is the mean of
  1 - ||y - yhat||^2 / ||y - ybar||^2 over tokens, with ybar the batch's mean.
* `mse` is divided by the number of tokens in the batch once too often.
* `relative_reconstruction_bias` is a mean of per-batch ratios.

The last four depend on the batch size, which is eval.lm_sequences rows. Our
attention is restricted to one document and SAEBench's is not, so results agree
exactly only for rows of a single document.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Array, Bool, Float, Num
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import kl

_SMALL_NORM = 1e-4


class Core(NamedTuple):
  """Sums over tokens and, for `mse` and names in `_means`, of batch means."""

  batches: Num[Array, '']
  tokens: Num[Array, '']
  # Sums over kept tokens.
  l0: Num[Array, '']
  l1: Num[Array, '']
  l2_norm_in: Num[Array, '']
  l2_norm_out: Num[Array, '']
  l2_ratio: Num[Array, '']
  cossim: Num[Array, '']
  legacy: Num[Array, '']
  # Sums of the means of batches. `compute` divides `mse` by `tokens`
  # nevertheless, because SAEBench does.
  mse: Num[Array, '']
  bias_means: Num[Array, '']
  square_means: Num[Array, '']
  residual_means: Num[Array, '']
  # Sums for the language model: KL over kept tokens, and losses over `sources`,
  # which are kept tokens that have a next token in their row.
  kl_div_with_sae: Num[Array, '']
  kl_div_with_ablation: Num[Array, '']
  sources: Num[Array, '']
  ce_loss_without_sae: Num[Array, '']
  ce_loss_with_sae: Num[Array, '']
  ce_loss_with_ablation: Num[Array, '']

  @classmethod
  def from_batch(
      cls,
      x: Float[Array, 'sequences positions model'],
      reconstruction: Float[Array, 'sequences positions model'],
      keep: Bool[Array, 'sequences positions'],
      *,
      by_position: jitted.ByPosition,
      spliced: Any,
      ablated: Any,
  ) -> 'Core':
    """Returns one batch's sums.

    `spliced` and `ablated` compare with the clean pass (`lm.Comparison`).
    """
    x, reconstruction = (
        jnp.where(keep[..., None], v.astype(jnp.float32), 0)
        for v in (x, reconstruction)
    )
    count = jnp.maximum(keep.sum(), 1)
    norm, norm_out = (jnp.linalg.norm(v, axis=-1) for v in (x, reconstruction))
    overlap = (x * reconstruction).sum(-1)
    mean = x.sum((0, 1)) / count
    spread = jnp.square(x - mean[None, None]).sum(-1)
    sources = keep & (jnp.arange(keep.shape[1]) < keep.shape[1] - 1)[None]

    def total(values, mask=keep):
      return jnp.where(mask, values, 0).sum()

    residual = total(by_position.residual)
    return cls(
        batches=keep.any().astype(jnp.int32),
        tokens=keep.sum(),
        l0=total(by_position.l0),
        l1=total(by_position.l1),
        l2_norm_in=total(norm),
        l2_norm_out=total(norm_out),
        l2_ratio=total(norm_out / jnp.where(norm < _SMALL_NORM, 1, norm)),
        cossim=total(overlap / (norm * norm_out)),
        legacy=total(1 - by_position.residual / spread),
        mse=residual / count,
        bias_means=jnp.where(
            keep.any(), total(jnp.square(norm_out)) / total(overlap), 0
        ),
        square_means=total(jnp.square(norm)) / count,
        residual_means=residual / count,
        kl_div_with_sae=total(spliced.divergence),
        kl_div_with_ablation=total(ablated.divergence),
        sources=sources.sum(),
        ce_loss_without_sae=total(spliced.clean, sources),
        ce_loss_with_sae=total(spliced.changed, sources),
        ce_loss_with_ablation=total(ablated.changed, sources),
    )

  def merge(self, other: 'Core') -> 'Core':
    """Returns the sums over the batches of both records."""
    return metrics.add(self, other)

  def compute(self, size: int) -> dict[str, Any]:
    """Returns SAEBench's metrics; `size` is the activations' dimension."""
    by_token = {
        name: metrics.ratio(getattr(self, name), self.tokens)
        for name in (
            'l0', 'l1', 'l2_norm_in', 'l2_norm_out', 'l2_ratio', 'cossim',
            'mse', 'kl_div_with_sae', 'kl_div_with_ablation',
        )
    }  # fmt: skip
    by_source = {
        name: metrics.ratio(getattr(self, name), self.sources)
        for name in (
            'ce_loss_without_sae', 'ce_loss_with_sae', 'ce_loss_with_ablation',
        )
    }  # fmt: skip
    without, with_sae, ablated = by_source.values()
    square = metrics.ratio(self.square_means, self.batches)
    residual = metrics.ratio(self.residual_means, self.batches)
    return (
        by_token
        | by_source
        | {
            'kl_div_score': metrics.ratio(
                by_token['kl_div_with_ablation'] - by_token['kl_div_with_sae'],
                by_token['kl_div_with_ablation'],
            ),
            'ce_loss_score': metrics.ratio(
                ablated - with_sae, ablated - without
            ),
            'explained_variance_legacy': metrics.ratio(
                self.legacy, self.tokens
            ),
            'explained_variance': 1
            - metrics.ratio(residual, square - np.square(square / size)),
            'relative_reconstruction_bias': metrics.ratio(
                self.bias_means, self.batches
            ),
        }
    )


@functools.partial(jax.jit, static_argnames=('mesh',))
def _sums(x, reconstruction, keep, *, by_position, spliced, ablated, mesh):
  record = Core.from_batch(
      x,
      reconstruction,
      keep,
      by_position=by_position,
      spliced=spliced,
      ablated=ablated,
  )
  return jitted.replicate(record, mesh)


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on the text of the losses."""
  mesh = context.text.mesh
  comparisons = kl.comparer(context.model, context.means, mesh=mesh)

  def step(tokens):
    batch = context.forward(tokens)
    compare = comparisons(batch)
    everywhere = batch._replace(keep=jnp.ones_like(batch.keep))
    ablated = {
        target: compare(
            target, jnp.zeros_like(batch.values[target]), where=everywhere
        )
        for target in context.means
    }
    records = []
    for member in context.members:
      call = corpus_passes.call_of(member, batch, mesh=mesh)
      value = call(jitted.reconstruct)
      records.append(
          _sums(
              batch.values[member.target],
              value,
              batch.keep,
              by_position=call(jitted.by_position),
              spliced=compare(member.target, value),
              ablated=ablated[member.target],
              mesh=mesh,
          )
      )
    return records

  total = corpus_passes.merge_over(context.text, step, 'evaluate: SAEBench')
  columns = [
      {
          f'saebench_{name}': value
          for name, value in record.compute(member.sae.d_out).items()
      }
      for record, member in zip(total, context.members, strict=True)
  ]
  return context_lib.Measured(columns)
