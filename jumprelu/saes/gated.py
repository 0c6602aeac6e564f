"""Gated SAEs: one half decides whether a latent is on, the other how much.

  gate = W_enc' (x - b_dec) + b_enc          magnitude = exp(r_mag) * W_enc'
                                                         (x - b_dec) + b_mag
  latents = [gate > 0] * max(magnitude, 0)
  loss = ||x - decode(latents)||^2 + sparsity_coefficient * sum of max(gate, 0)
       + ||x - decode'(max(gate, 0))||^2

decode' is the decoder without gradients to its weights and bias (Gated SAEs,
arXiv 2404.16014, sections 3.1 and 3.2, pseudo-code in its figures 16 and 17).
`decoder_norm=unit` is that paper's. `decoder_norm=free` is RI-L1, the baseline
of JumpReLU SAEs (arXiv 2407.14435): the penalty is the sum of max(gate, 0) *
||decoder row|| and rows are free; like decode' it is without gradients to them.

At release a Gated SAE is a JumpReLU SAE (the paper's appendix on their
equivalence): with z = magnitude, gate > 0 is z > b_mag - exp(r_mag) * b_enc, so
that is the threshold, or 0 where it is negative, for magnitudes are cut there.

Where implementations differ, and what is done here:
* r_mag starts at 0; the paper does not say. SAELens does the same.
* The paper's code divides squared errors by the dimension; here they are sums.
* decode' freezes weights and bias; the bias still learns through the pre-encoder
  bias. SAELens' later versions let the third term train the decoder and always
  weigh the penalty by its rows' norms.
* SAELens names the gate's bias b_gate; here it is `b_enc`, as it is the bias of
  `W_enc`, and `pre_acts` are the gate's.
* The original resamples dead latents; here nothing does.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.saes import base, jumprelu, relu


@dataclasses.dataclass(frozen=True)
class Config(relu.Config):
  """Hyper-parameters of a Gated SAE; the defaults are the paper's."""


@dataclasses.dataclass(frozen=True)
class Gated(relu.Relu):
  """A ReLU SAE as the gate of magnitudes, which share its encoder."""

  variant: ClassVar[str] = 'gated'

  config: Config

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Start with a magnitude that is the gate."""
    del initial_threshold, target_l0
    zeros = jnp.zeros(self.width, jnp.float32)
    return {'r_mag': zeros, 'b_mag': zeros}

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Give the magnitudes where gate and magnitude are positive."""
    leading = (1,) * (pre_acts.ndim - 1)
    r_mag, b_mag, b_gate = (
        params[name].reshape(leading + (self.width,))
        for name in ('r_mag', 'b_mag', 'b_enc')
    )
    # The folded gate's bias has the pre-encoder bias in it, and so has b_mag.
    magnitude = jnp.exp(r_mag) * (pre_acts - b_gate) + b_mag
    return jnp.where((pre_acts > 0) & (magnitude > 0), magnitude, 0.0)

  def penalty(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Weigh the gates by decoder norms that do not learn from it.

    Nothing of the gate's half teaches the decoder: if the penalty did, rows
    would shrink for ever, for the magnitudes can make up for it.
    """
    norms = jax.lax.stop_gradient(params['W_dec'])
    return super().penalty({'W_dec': norms}, pre_acts, latents)

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Let the gates alone reconstruct, by a decoder that does not learn."""
    del latents
    frozen = jax.lax.stop_gradient(params)
    errors = self.decode(frozen, relu.positive(pre_acts)) - rows.targets
    return base.kept_mean(jnp.square(errors).sum(axis=-1), rows.keep)

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Scale the magnitude's bias, with the pre-encoder bias in it."""
    shift = jnp.exp(params['r_mag']) * self.bias_shift(params)
    return {
        'r_mag': params['r_mag'],
        'b_mag': (params['b_mag'] - shift) * scale,
    }

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params]:
    """The magnitude's affine map, with the gate's threshold on it."""
    factor = jnp.exp(params['r_mag'])
    threshold = params['b_mag'] - factor * params['b_enc']
    return jumprelu.as_jumprelu(
        self,
        params,
        threshold=jnp.maximum(threshold, 0.0),
        W_enc=params['W_enc'] * factor[None, :],
        b_enc=params['b_mag'],
    )
