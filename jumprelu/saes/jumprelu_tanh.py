"""Anthropic's JumpReLU SAEs: a tanh penalty that also trains the weights.

  penalty = sum over latents of tanh(tanh_scale * sqrt(d) * latent * norm)
  loss = ||x - decode(latents)||^2 + sparsity_coefficient * penalty
         + pre_act_coefficient / sqrt(d) * sum over latents of
                                           max(threshold - z, 0) * norm

where z is a pre-activation, norm is the norm of the latent's decoder row (which
is not constrained), and d is the dimension of the targets. The source is
Anthropic's Circuits Updates, January 2025, on training SAEs. The tanh is near 1
for clearly active latents, so the penalty counts latents without shrinking
them. Unlike the L0 of JumpReLU SAEs, it has a gradient to the encoder and the
decoder, and a pseudo-gradient to the thresholds through the latents. The last
term revives silent latents, whose pre-activations have no other gradient.

Anthropic's text, SAELens and this package differ. The choices here:
* Scale: Anthropic scales activations to a mean ||x||^2 of d, this package to 1.
  The factors sqrt(d) above convert Anthropic's values (tanh_scale 4,
  pre_act_coefficient 3e-6). Its bandwidth of 2 and initial threshold of 0.1
  become 2 / sqrt(d) and 0.1 / sqrt(d); the defaults are these values at d =
  2304, rounded. Divide Anthropic's sparsity coefficients by d.
* Last term: here it covers all latents, as in Anthropic's text. In SAELens it
  covers only latents that have been silent for long.
* Schedules: Anthropic raises the sparsity coefficient over the whole run and
  decays the learning rate over the last fifth. Here this needs the flags
  `--optim.sparsity_warmup_fraction=1`, `--optim.sparsity_warmup_steps=none` and
  `--optim.lr_decay=0.2`.
* Biases: Anthropic initialises them so that each latent fires on a fixed share
  of rows. Here they start at 0.
* Pre-encoder bias: none by default, as in Anthropic's text;
  `--sae.jumprelu_tanh.pre_encoder_bias` adds it.
"""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.files import fields
from jumprelu.saes import base, jumprelu


@dataclasses.dataclass(frozen=True)
class Config(jumprelu.ThresholdConfig):
  """Hyper-parameters of a JumpReLU SAE with a tanh penalty."""

  pre_encoder_bias: bool = fields.field(
      False, 'Subtract the decoder bias from the inputs.'
  )
  bandwidth: float = fields.field(0.04, "Width of the thresholds' kernel.")
  initial_threshold: float = fields.field(
      2e-3, 'Threshold of every latent at init.'
  )
  tanh_scale: float = fields.field(
      4.0, 'Steepness of the penalty, for activations with ||x||^2 = d.'
  )
  pre_act_coefficient: float = fields.field(
      3e-6, 'Weight of the pull on inactive latents; 0 for none.'
  )

  def __post_init__(self):
    super().__post_init__()
    fields.check_positive(self, 'tanh_scale')
    finite = 0 <= self.pre_act_coefficient < math.inf
    fields.check(self, 'pre_act_coefficient', finite, 'at least 0')


@dataclasses.dataclass(frozen=True)
class JumpReluTanh(jumprelu.Thresholded):
  """A JumpReLU SAE with a smooth penalty and a free decoder."""

  variant: ClassVar[str] = 'jumprelu_tanh'

  config: Config

  @property
  def unit_norm_decoder(self) -> bool:
    """Whether the optimiser keeps the decoder's rows at unit norm."""
    return False

  def penalty(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Returns each row's sum of tanh, a smooth count of active latents."""
    del pre_acts
    sizes = latents * _norms(params, latents.ndim)
    scale = self.config.tanh_scale * math.sqrt(self.d_out)
    return jnp.tanh(scale * sizes).sum(axis=-1)

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Returns the last term of the loss, which pulls on inactive latents."""
    del latents
    below = jnp.maximum(self.threshold(params)[None, :] - pre_acts, 0.0)
    pull = (below * _norms(params, 2)).sum(axis=-1)
    weight = self.config.pre_act_coefficient / math.sqrt(self.d_out)
    return weight * base.kept_mean(pull, rows.keep)


def _norms(params: base.Params, rank: int) -> Float[Array, '*ones latents']:
  norms = jnp.linalg.norm(params['W_dec'], axis=-1)
  return norms.reshape((1,) * (rank - 1) + norms.shape)
