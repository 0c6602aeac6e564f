"""BatchTopK SAEs: TopK over all rows of a batch at once.

  latents in training  = z where z is positive and among the k * rows largest of
                         the batch, else 0
  latents at inference = z where z > threshold, else 0
  threshold            = running mean of each batch's smallest active latent

where z are the pre-activations (arXiv 2412.06410, sections 3 and 3.1). A row
may use more or fewer latents than k, but the mean over rows is k. The loss is
that of TopK, including its auxiliary term. The threshold is part of the
training state, because every batch updates it. The evaluated and released SAE
is a JumpReLU SAE with the same threshold for all latents.

Implementations differ. This package chooses as follows:
* Threshold: the paper computes it after training, as an average over batches.
  dictionary_learning and SAELens keep an exponential mean during training, with
  decays of 0.999 and 0.99 respectively. This package also keeps an exponential
  mean (`threshold_decay`), which starts at the value of the first batch.
* First steps: dictionary_learning leaves the first thousand steps out of the
  mean. This package includes them, because a mean with a decay of 0.999 forgets
  them after a few thousand steps.
* Dropped rows (BOS, padding): public implementations include them in the
  selection. Here they have no latents, and only kept rows count in k * rows.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float
from jumprelu.files import fields
from jumprelu.ops import largest_k, pseudo_derivatives
from jumprelu.saes import base, jumprelu, topk


@dataclasses.dataclass(frozen=True)
class Config(topk.Config):
  """Hyper-parameters of a BatchTopK SAE."""

  threshold_decay: float = fields.field(
      0.999, 'Decay per step of the running threshold.'
  )

  def __post_init__(self):
    super().__post_init__()
    valid = 0 <= self.threshold_decay < 1
    fields.check(self, 'threshold_decay', valid, 'from 0 to below 1')


@dataclasses.dataclass(frozen=True)
class BatchTopK(topk.TopK):
  """An SAE with a fixed mean number of active latents per row."""

  variant: ClassVar[str] = 'batch_topk'
  untrained: ClassVar[tuple[str, ...]] = ('k', 'threshold')

  config: Config

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Returns TopK's parameters, and a threshold of 0 until the first batch."""
    zeros = jnp.zeros(self.width, jnp.float32)
    return super().init_own_params(
        initial_threshold=initial_threshold, target_l0=target_l0
    ) | {'threshold': zeros}

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns the pre-activations above the running threshold, else 0."""
    threshold = jax.lax.stop_gradient(params['threshold'])
    active = pseudo_derivatives.is_active(pre_acts, threshold)
    return jnp.where(active, pre_acts, 0.0)

  def chosen(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      *,
      keep: Bool[Array, ' batch'],
      search: topk.Search = largest_k.largest,
  ) -> Bool[Array, 'batch latents']:
    """Returns the mask of the k * rows largest pairs of the kept rows."""
    k = jax.lax.stop_gradient(params['k'])
    count = jnp.round(k * keep.sum(dtype=jnp.int32)).astype(jnp.int32)
    return search(pre_acts, count, whole=True, rows=keep)

  def carry(
      self, params: base.Params, latents: Float[Array, 'batch latents']
  ) -> base.Params:
    """Returns the threshold, updated with this batch's smallest active latent.

    A batch without active latents leaves the threshold unchanged.
    """
    latents = jax.lax.stop_gradient(latents)
    old = jax.lax.stop_gradient(params['threshold'])
    smallest = jnp.min(jnp.where(latents > 0, latents, jnp.inf))
    decay = self.config.threshold_decay
    moved = jnp.where(old > 0, decay * old + (1 - decay) * smallest, smallest)
    return {'threshold': jnp.where(jnp.isfinite(smallest), moved, old)}

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Returns k, and the threshold multiplied like the pre-activations."""
    folded = super().fold_own(params, scale=scale)
    return folded | {'threshold': params['threshold'] * scale}

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params]:
    """Returns the JumpReLU SAE with the running threshold."""
    threshold = params['threshold']
    return jumprelu.as_jumprelu(self, params, threshold=threshold)
