"""ReLU SAEs with rescaled and shifted latents, to undo shrinkage only.

  z = W_enc^T (x - b_dec) + b_enc            latents of the ReLU = max(z, 0)
  latents = [z > 0] * max(exp(r_mag) * z + shift, 0)
  loss = that of the ReLU SAE (`relu.py`)
       + ||x - decode'(latents)||^2, with gradients to r_mag and shift alone

This is the second baseline in figure 9 of Gated SAEs (arXiv 2404.16014),
"baseline + rescale & shift". decode' is the decoder without gradients. An L1
penalty shrinks latents, and an unpenalised gain and shift per latent can undo
the shrinkage. If Gated SAEs are better than this baseline, the reason is
therefore not shrinkage alone. At release an SAE of this variant becomes a
JumpReLU SAE with the threshold max(shift, 0).

The paper's text on this baseline was not available, and summaries of it are
silent on some points. This module chooses as follows:
* Training: the summaries report that gain and shift are learned on a frozen
  ReLU SAE, but not for how long. Here they are trained together with the ReLU
  SAE. Its parameters get the same gradients as without gain and shift.
* Order: the summaries do not specify whether the shift is added before or after
  the gain. The form exp(r_mag) * z + shift covers both orders.
* Sign: the summaries do not specify whether a negative shift may deactivate
  latents. Here it may.
* Metrics: L0 and FVU in training are those of the ReLU SAE. Evaluation and
  release use the rescaled latents.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float
from jumprelu.saes import base, jumprelu, relu


@dataclasses.dataclass(frozen=True)
class Config(relu.Config):
  """Hyper-parameters of a ReLU SAE with rescaled latents."""


@dataclasses.dataclass(frozen=True)
class ReluRescaled(relu.Relu):
  """A ReLU SAE with a gain and a shift per latent."""

  variant: ClassVar[str] = 'relu_rescaled'

  config: Config

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Returns a gain and a shift that leave the ReLU's latents unchanged."""
    del initial_threshold, target_l0
    zeros = jnp.zeros(self.width, jnp.float32)
    return {'r_mag': zeros, 'shift': zeros}

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns the ReLU's latents, rescaled and shifted."""
    rows = (1,) * (pre_acts.ndim - 1) + (self.width,)
    gain = jnp.exp(params['r_mag']).reshape(rows)
    moved = gain * pre_acts + params['shift'].reshape(rows)
    return jnp.where((pre_acts > 0) & (moved > 0), moved, 0.0)

  def batch_latents(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      *,
      inputs: Float[Array, 'batch model'],
      keep: Bool[Array, ' batch'],
  ) -> Float[Array, 'batch latents']:
    """Returns latents without gain and shift, so that the loss trains neither."""
    del params, inputs, keep
    return relu.positive(pre_acts)

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Returns the rescaled latents' error, which trains gain and shift only."""
    del latents
    frozen = jax.lax.stop_gradient((params, pre_acts))
    fitted = frozen[0] | {name: params[name] for name in ('r_mag', 'shift')}
    moved = self.activate(fitted, frozen[1])
    errors = self.decode(fitted, moved, rows.inputs) - rows.targets
    return base.kept_mean(jnp.square(errors).sum(axis=-1), rows.keep)

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Returns r_mag, and the shift multiplied like the pre-activations."""
    return {'r_mag': params['r_mag'], 'shift': params['shift'] * scale}

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params]:
    """Returns the JumpReLU SAE with pre-activations gain * z + shift.

    Its thresholds are max(shift, 0), because z > 0 is equivalent to
    gain * z + shift > shift.
    """
    gain = jnp.exp(params['r_mag'])
    return jumprelu.as_jumprelu(
        self,
        params,
        threshold=jnp.maximum(params['shift'], 0.0),
        W_enc=params['W_enc'] * gain[None, :],
        b_enc=params['b_enc'] * gain + params['shift'],
    )
