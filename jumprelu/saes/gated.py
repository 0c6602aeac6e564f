"""Gated SAEs: a gate decides which latents are active, a magnitude how much.

  gate      = W_enc^T (x - b_dec) + b_enc
  magnitude = exp(r_mag) * W_enc^T (x - b_dec) + b_mag
  latents   = [gate > 0] * max(magnitude, 0)
  loss = ||x - decode(latents)||^2 + sparsity_coefficient * sum of max(gate, 0)
       + ||x - decode'(max(gate, 0))||^2

decode' is the decoder without gradients to its weights and bias (Gated SAEs,
arXiv 2404.16014, sections 3.1 and 3.2, pseudo-code in its figures 16 and 17).
The default `decoder_norm=unit` is that paper's. `decoder_norm=free` is RI-L1,
the baseline of JumpReLU SAEs (arXiv 2407.14435): the norms of decoder rows are
not constrained, and the penalty is the sum of max(gate, 0) * ||decoder row||.
By default the rows get no gradient from this penalty.

At release a Gated SAE becomes a JumpReLU SAE with the magnitudes as
pre-activations, as the paper's appendix explains. gate > 0 is equivalent to
magnitude > b_mag - exp(r_mag) * b_enc. The threshold is the maximum of this
bound and 0, because latents are positive.

Three switches are the ablations of the paper's figure 8. `rescale=False` fixes
r_mag at 0. `frozen_decoder=False` lets the third term train the decoder too.
`tied=False` gives magnitudes a separate encoder W_mag instead of exp(r_mag) *
W_enc. Such an SAE equals no JumpReLU SAE, so it is released in its trained
form.

Implementations differ. This package chooses as follows:
* Initial values: r_mag starts at 0, as in SAELens; the paper gives no value.
  W_mag starts as W_enc. Magnitudes therefore start equal to the gates, whether
  or not encoders are tied.
* Squared errors: the paper's code divides them by the dimension. Here they are
  sums.
* Frozen decoder: here decode' freezes weights and bias, and the bias still
  learns as the pre-encoder bias. Later versions of SAELens let the third term
  train the decoder, and always weight the penalty by the norms of decoder rows.
* Names: SAELens calls the gate's bias b_gate. Here it is `b_enc`, because it is
  the bias of `W_enc`. `pre_acts` are the gate's pre-activations.
* Dead latents: the paper resamples them. This package does not.
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
      True, "Magnitudes use the gates' encoder instead of a separate one."
  )
  rescale: bool = fields.field(
      True, 'Magnitudes scale the shared encoder by a learned gain per latent.'
  )
  frozen_decoder: bool = fields.field(
      True, 'The reconstruction from the gates does not train the decoder.'
  )


@dataclasses.dataclass(frozen=True)
class Gated(relu.Relu):
  """A ReLU SAE whose latents gate separate magnitudes."""

  variant: ClassVar[str] = 'gated'

  config: Config

  @property
  def encoders(self) -> tuple[str, ...]:
    """Returns the names of the encoder matrices, [model, latents] each."""
    return ('W_enc',) if self.config.tied else ('W_enc', 'W_mag')

  def init_params(
      self,
      key: Key[Array, ''],
      *,
      initial_threshold: base.Scalar,
      target_l0: base.Scalar = 1.0,
  ) -> base.Params:
    """Returns initial parameters, in which all encoders are equal."""
    params = super().init_params(
        key, initial_threshold=initial_threshold, target_l0=target_l0
    )
    return params | {name: params['W_enc'] for name in self.encoders}

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Returns zeros, with which magnitudes equal gates at the start."""
    del initial_threshold, target_l0
    zeros = jnp.zeros(self.width, jnp.float32)
    gain = {'r_mag': zeros} if self._has_gain else {}
    return gain | {'b_mag': zeros}

  @property
  def _has_gain(self) -> bool:
    return self.config.tied and self.config.rescale

  def _gain(self, params: base.Params) -> Float[Array, ' latents']:
    """Returns exp(r_mag), which is 1 in an SAE without that parameter."""
    if self._has_gain:
      return jnp.exp(params['r_mag'])
    return jnp.ones(self.width, jnp.float32)

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns the magnitudes where gate and magnitude are positive, else 0.

    Raises:
      TypeError: Magnitudes have a separate encoder.
    """
    if not self.config.tied:
      raise TypeError('an untied Gated SAE needs its inputs: call `latents`')
    leading = (1,) * (pre_acts.ndim - 1)
    gain, b_mag, b_gate = (
        value.reshape(leading + (self.width,))
        for value in (self._gain(params), params['b_mag'], params['b_enc'])
    )
    # This is also right for a folded SAE, because its b_enc and b_mag both
    # include the shift by the pre-encoder bias.
    return _gated(pre_acts, gain * (pre_acts - b_gate) + b_mag)

  def latents(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      *,
      inputs: Float[Array, '*batch model'],
  ) -> Float[Array, '*batch latents']:
    """Returns the magnitudes where gate and magnitude are positive, else 0."""
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
    """Returns each row's sum of max(gate, 0) * ||decoder row||.

    With `frozen_decoder`, the decoder gets no gradient from this penalty.
    Otherwise decoder rows would shrink without limit: larger magnitudes can
    compensate for it, and the third term does not train the decoder.
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
    """Returns the squared error of the reconstruction from max(gate, 0)."""
    del latents
    decoder = self._gate_decoder(params)
    outputs = self.decode(decoder, relu.positive(pre_acts), rows.inputs)
    errors = outputs - rows.targets
    return base.kept_mean(jnp.square(errors).sum(axis=-1), rows.keep)

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Returns r_mag, and b_mag minus the pre-encoder shift, then scaled."""
    shift = self._gain(params) * self.bias_shift(params, self.encoders[-1])
    gain = {'r_mag': params['r_mag']} if self._has_gain else {}
    return gain | {'b_mag': (params['b_mag'] - shift) * scale}

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params] | None:
    """Returns the JumpReLU SAE of the magnitudes, or None if untied."""
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
