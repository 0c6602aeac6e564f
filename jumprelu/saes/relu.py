"""ReLU SAEs with an L1 penalty: the baseline of the papers.

  latents = max(z, 0),  penalty = sum of latents * ||their decoder rows||

With decoder rows of unit norm (`decoder_norm=unit`, the default) this is the
baseline of Gated SAEs (arXiv 2404.16014, section 2 and appendix D) and of
Bricken et al. (2023): a plain L1 norm. With free rows (`decoder_norm=free`) it
is the later form of the Circuits Updates of April 2024, where a latent cannot
escape its penalty by a larger row. At release the norms are folded into the
encoder with either setting.

Implementations differ, and this one chooses:
* The Gated paper divides the squared error by the dimension, others average
  over it, so their coefficients are not comparable. Here the error is summed,
  as everywhere in this package.
* The papers revive dead latents by resampling; this package does not.
* In SAELens a flag decides whether there is a pre-encoder bias. The Gated paper
  has one, which is the default here.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.files import fields
from jumprelu.saes import base, jumprelu

DECODER_NORMS = ('unit', 'free')


@dataclasses.dataclass(frozen=True)
class Config(base.Config):
  """Hyper-parameters of a ReLU SAE; the defaults are the Gated paper's."""

  decoder_norm: str = fields.field(
      'unit',
      'Norm of decoder rows: unit or free (RI-L1 in a Gated SAE). The penalty'
      ' is on latents times norms with either.',
  )

  def __post_init__(self):
    fields.check_choice(self, 'decoder_norm', DECODER_NORMS)


@dataclasses.dataclass(frozen=True)
class Relu(base.Sae):
  """An SAE without thresholds."""

  variant: ClassVar[str] = 'relu'

  config: Config

  @property
  def unit_norm_decoder(self) -> bool:
    """Whether the optimiser keeps the decoder's rows at unit norm."""
    return self.config.decoder_norm == 'unit'

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Returns no parameters, because a ReLU has none."""
    del initial_threshold, target_l0
    return {}

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns the positive pre-activations, else 0."""
    del params
    return positive(pre_acts)

  def penalty(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Returns each row's sum of latents times the norms of decoder rows."""
    del latents
    return jnp.matmul(
        positive(pre_acts),
        jnp.linalg.norm(params['W_dec'], axis=-1),
        precision=jax.lax.Precision.HIGHEST,
    )

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Returns no parameters: a ReLU commutes with a positive scale."""
    del params, scale
    return {}

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params] | None:
    """Returns the equal JumpReLU SAE, whose thresholds are 0."""
    zeros = jnp.zeros(self.width, jnp.float32)
    return jumprelu.as_jumprelu(self, params, threshold=zeros)


def positive(values: Float[Array, '...']) -> Float[Array, '...']:
  """Returns the positive values, and 0 for the others."""
  return jnp.where(values > 0, values, 0.0)
