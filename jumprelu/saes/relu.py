"""ReLU SAEs with an L1 penalty: the baseline of the papers.

  latents = max(z, 0),  penalty = sum over latents of latent * ||decoder row||

where z are the pre-activations. With decoder rows of unit norm
(`decoder_norm=unit`, the default) the penalty is a plain L1 norm. This is the
baseline of Gated SAEs (arXiv 2404.16014, section 2 and appendix D) and of
Bricken et al. (2023). With `decoder_norm=free` the norms are not constrained,
as in the Circuits Updates of April 2024; a latent cannot reduce its penalty by
a larger decoder row. Folding moves the norms into the encoder with either
setting.

Implementations differ. This package chooses as follows:
* Squared error: it is summed over dimensions, as everywhere in this package.
  Others, including the Gated paper, divide it by the dimension, so their
  coefficients are not comparable.
* Dead latents: the papers resample them. This package does not.
* Pre-encoder bias: there is one by default, as in the Gated paper. In SAELens a
  flag decides.
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
      'Norm of decoder rows: unit or free (RI-L1 in a Gated SAE). With either,'
      " a latent's penalty is multiplied by its row's norm.",
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
    """Returns each row's sum of max(pre-activation, 0) * ||decoder row||."""
    del latents
    return jnp.matmul(
        positive(pre_acts),
        jnp.linalg.norm(params['W_dec'], axis=-1),
        precision=jax.lax.Precision.HIGHEST,
    )

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Returns no parameters, because a ReLU has none."""
    del params, scale
    return {}

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params] | None:
    """Returns the JumpReLU SAE with thresholds of 0."""
    zeros = jnp.zeros(self.width, jnp.float32)
    return jumprelu.as_jumprelu(self, params, threshold=zeros)


def positive(values: Float[Array, '...']) -> Float[Array, '...']:
  """Returns the positive values, and 0 for the others."""
  return jnp.where(values > 0, values, 0.0)
