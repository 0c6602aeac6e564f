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

The ablations of the paper's figure 8 are one switch each. `rescale=False` has
no r_mag (it is 0). `frozen_decoder=False` lets the third term train the decoder
too. `tied=False` gives magnitudes an encoder W_mag of their own instead of
exp(r_mag) * W_enc; such an SAE is no JumpReLU, so it is released as it is.

Where implementations differ, and what is done here:
* r_mag starts at 0; the paper does not say. SAELens does the same. W_mag starts
  as W_enc, so that magnitudes start as the gates' in any case.
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

from jumprelu.array_typing import Array, Float, Key
from jumprelu.files import fields
from jumprelu.saes import base, jumprelu, relu


@dataclasses.dataclass(frozen=True)
class Config(relu.Config):
  """Hyper-parameters of a Gated SAE; the defaults are the paper's."""

  tied: bool = fields.field(
      True, "Magnitudes read by the gates' encoder, not by one of their own."
  )
  rescale: bool = fields.field(
      True, 'Magnitudes have a gain a latent on the encoder that they share.'
  )
  frozen_decoder: bool = fields.field(
      True, 'The reconstruction of the gates does not train the decoder.'
  )


@dataclasses.dataclass(frozen=True)
class Gated(relu.Relu):
  """A ReLU SAE as the gate of magnitudes, which share its encoder."""

  variant: ClassVar[str] = 'gated'

  config: Config

  @property
  def encoders(self) -> tuple[str, ...]:
    """Names of the parameters [model, latents] that read the inputs."""
    return ('W_enc',) if self.config.tied else ('W_enc', 'W_mag')

  def init_params(
      self,
      key: Key[Array, ''],
      *,
      initial_threshold: base.Scalar,
      target_l0: base.Scalar = 1.0,
  ) -> base.Params:
    """Start an encoder of magnitudes as that of the gates."""
    params = super().init_params(
        key, initial_threshold=initial_threshold, target_l0=target_l0
    )
    return params | {name: params['W_enc'] for name in self.encoders}

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Start with a magnitude that is the gate."""
    del initial_threshold, target_l0
    zeros = jnp.zeros(self.width, jnp.float32)
    gain = {'r_mag': zeros} if self._has_gain else {}
    return gain | {'b_mag': zeros}

  @property
  def _has_gain(self) -> bool:
    return self.config.tied and self.config.rescale

  def _gain(self, params: base.Params) -> Float[Array, ' latents']:
    """Give the factors from the gates' weights to the magnitudes'."""
    if self._has_gain:
      return jnp.exp(params['r_mag'])
    return jnp.ones(self.width, jnp.float32)

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Give the magnitudes where gate and magnitude are positive.

    Raises:
      TypeError: if magnitudes have an encoder of their own.
    """
    if not self.config.tied:
      raise TypeError('magnitudes that are not tied need the inputs: `latents`')
    leading = (1,) * (pre_acts.ndim - 1)
    gain, b_mag, b_gate = (
        value.reshape(leading + (self.width,))
        for value in (self._gain(params), params['b_mag'], params['b_enc'])
    )
    # The folded gate's bias has the pre-encoder bias in it, and so has b_mag.
    return _gated(pre_acts, gain * (pre_acts - b_gate) + b_mag)

  def latents(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      *,
      inputs: Float[Array, '*batch model'],
  ) -> Float[Array, '*batch latents']:
    """Give the magnitudes where gate and magnitude are positive."""
    if self.config.tied:
      return self.activate(params, pre_acts)
    return _gated(
        pre_acts, self.affine(params, inputs, encoder='W_mag', bias='b_mag')
    )

  def penalty(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Weigh the gates by the norms of the decoder that they reconstruct by.

    Where that does not learn, its norms must not either: rows would shrink for
    ever, for the magnitudes can make up for it and the gates not object.
    """
    return super().penalty(self._gate_decoder(params), pre_acts, latents)

  def _gate_decoder(self, params: base.Params) -> base.Params:
    if self.config.frozen_decoder:
      return jax.lax.stop_gradient(params)
    return params

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Let the gates alone reconstruct, mostly by a decoder that is constant."""
    del latents
    decoder = self._gate_decoder(params)
    outputs = self.decode(decoder, relu.positive(pre_acts), rows.inputs)
    errors = outputs - rows.targets
    return base.kept_mean(jnp.square(errors).sum(axis=-1), rows.keep)

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Scale the magnitude's bias, with the pre-encoder bias in it."""
    shift = self._gain(params) * self.bias_shift(params, self.encoders[-1])
    gain = {'r_mag': params['r_mag']} if self._has_gain else {}
    return gain | {'b_mag': (params['b_mag'] - shift) * scale}

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params] | None:
    """The magnitude's affine map, with the gate's threshold on it."""
    if not self.config.tied:
      return None
    gain = self._gain(params)
    threshold = params['b_mag'] - gain * params['b_enc']
    return jumprelu.as_jumprelu(
        self,
        params,
        threshold=jnp.maximum(threshold, 0.0),
        W_enc=params['W_enc'] * gain[None, :],
        b_enc=params['b_mag'],
    )


def _gated(
    gate: Float[Array, '*batch latents'],
    magnitude: Float[Array, '*batch latents'],
) -> Float[Array, '*batch latents']:
  return jnp.where((gate > 0) & (magnitude > 0), magnitude, 0.0)
