"""What a variant of SAE fills in or may change; `base.py` does the rest.

Each method is pure and for one SAE. A variant that learns something of the
batches without a gradient (a running threshold) keeps it among its parameters:
it is then stored, sharded, resumed and folded with them.
"""

import abc
from collections.abc import Sequence
import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Int32, Num
from jumprelu.ops import active_pairs

Params = dict[str, Array]
Scalar = int | float | np.number | Num[Array, '']


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyper-parameters that every variant has."""

  # What error messages call it, where its module is not named like its variant.
  name: ClassVar[str] = ''

  pre_encoder_bias: bool = dataclasses.field(
      default=True,
      metadata={
          'help': 'Subtract the decoder bias from the inputs; never done in'
          ' transcoders.'
      },
  )

  def __post_init__(self):
    """Variants check their own fields."""

  def sparsities(
      self, coefficients: Sequence[float], targets: Sequence[float]
  ) -> list[tuple[float, float]]:
    """List the members' sparsity coefficients and target L0s (0: none).

    `coefficients` and `targets` are those asked of the whole suite, one of them
    empty. A variant that cannot aim at an L0 has no members at a target.
    """
    return [] if targets else [(value, 0.0) for value in coefficients]


class LossParts(NamedTuple):
  """What one batch tells about one SAE.

  loss = reconstruction + penalty + auxiliary.
  """

  loss: Float[Array, '']
  # Mean squared norm of the error over kept rows.
  reconstruction: Float[Array, '']
  # The sparsity term as it stands in the loss, coefficient included.
  penalty: Float[Array, '']
  # What else the variant's paper adds.
  auxiliary: Float[Array, '']
  # Mean number of active latents over kept rows.
  l0: Float[Array, '']
  # On how many kept rows each latent fired.
  fired: Int32[Array, ' latents']
  # Parameters that follow the batches instead of a gradient, as they are next.
  carried: Params


class Rows(NamedTuple):
  """What a variant's own loss may refer to besides its latents."""

  targets: Float[Array, 'batch target_model']
  # reconstruction - targets.
  errors: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  # Kept rows since each latent fired.
  silent: Int32[Array, ' latents']


def kept_mean(
    values: Float[Array, 'batch *rest'], keep: Bool[Array, ' batch']
) -> Float[Array, '*rest']:
  """Average over the rows with `keep`."""
  rows = active_pairs.row_count(keep)
  mask = keep.reshape(keep.shape + (1,) * (values.ndim - 1))
  return jnp.where(mask, values, 0.0).sum(axis=0) / rows


@dataclasses.dataclass(frozen=True)
class Variant(abc.ABC):
  """One SAE's shape and config, and what is its variant's own."""

  variant: ClassVar[str]
  # Parameters that no gradient moves.
  untrained: ClassVar[tuple[str, ...]] = ()

  config: Config
  d_in: int
  d_out: int
  width: int
  # Input and target are different sites: no tied init, no pre-encoder bias.
  transcoder: bool = False

  # What a variant fills in.

  @abc.abstractmethod
  def init_own_params(
      self, *, initial_threshold: Scalar, target_l0: Scalar
  ) -> Params:
    """Make the parameters that only this variant has."""

  @abc.abstractmethod
  def activate(
      self, params: Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Turn pre-activations into latents."""

  @abc.abstractmethod
  def penalty(
      self,
      params: Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Give each row's sparsity penalty, with its gradient."""

  @abc.abstractmethod
  def fold_own(
      self, params: Params, *, scale: Float[Array, ' latents']
  ) -> Params:
    """Give the variant's own parameters of the folded SAE.

    `scale` is the factor by which each latent's pre-activations grow.
    """

  def sparsity_term(
      self,
      mean_penalty: Float[Array, ''],
      *,
      sparsity_coefficient: Scalar,
      target_l0: Scalar,
  ) -> Float[Array, '']:
    """Turn the mean penalty over kept rows into the loss's second term."""
    del target_l0
    return sparsity_coefficient * mean_penalty

  # What a variant may change.

  def folded_config(self) -> Config:
    """Give the config of the folded SAE."""
    return dataclasses.replace(self.config, pre_encoder_bias=False)

  @property
  def unit_norm_decoder(self) -> bool:
    """Whether the optimiser keeps the decoder's rows at unit norm."""
    return True

  @property
  def encoders(self) -> tuple[str, ...]:
    """Names of the parameters [model, latents] that read the inputs."""
    return ('W_enc',)

  def latents(
      self,
      params: Params,
      pre_acts: Float[Array, '*batch latents'],
      *,
      inputs: Float[Array, '*batch model'],
  ) -> Float[Array, '*batch latents']:
    """Give the latents, where pre-activations do not say all of them."""
    del inputs
    return self.activate(params, pre_acts)

  def batch_latents(
      self,
      params: Params,
      pre_acts: Float[Array, 'batch latents'],
      *,
      inputs: Float[Array, 'batch model'],
      keep: Bool[Array, ' batch'],
  ) -> Float[Array, 'batch latents']:
    """Give the latents of training, where rows may depend on each other."""
    del keep
    return self.latents(params, pre_acts, inputs=inputs)

  def sparsity_loss(
      self,
      params: Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      keep: Bool[Array, ' batch'],
      sparsity_coefficient: Scalar,
      target_l0: Scalar,
  ) -> Float[Array, '']:
    """Give the loss's second term."""
    return self.sparsity_term(
        kept_mean(self.penalty(params, pre_acts, latents), keep),
        sparsity_coefficient=sparsity_coefficient,
        target_l0=target_l0,
    )

  def auxiliary_loss(
      self,
      params: Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: Rows,
  ) -> Float[Array, '']:
    """Give the loss's third term."""
    del params, pre_acts, latents, rows
    return jnp.float32(0)

  def carry(
      self, params: Params, latents: Float[Array, 'batch latents']
  ) -> Params:
    """Give the parameters that follow the batches, as they are next.

    They are among the `untrained`. `latents` are those of `batch_latents`.
    """
    del params, latents
    return {}

  def to_jumprelu(self, params: Params) -> tuple[Any, Params] | None:
    """Give a folded SAE as the JumpReLU that it equals; none if it is none."""
    del params
    return None
