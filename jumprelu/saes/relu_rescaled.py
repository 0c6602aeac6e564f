"""ReLU SAEs whose latents are rescaled and shifted: shrinkage undone, no more.

  z = W_enc' (x - b_dec) + b_enc             latents of the ReLU = max(z, 0)
  latents = [z > 0] * max(exp(r_mag) * z + shift, 0)
  loss = that of the ReLU SAE (`relu.py`)
       + ||x - decode'(latents)||^2, with gradients to r_mag and shift alone

The second baseline of Gated SAEs' figure 9 (arXiv 2404.16014), "baseline +
rescale & shift": an L1 penalty shrinks latents, and a gain and a shift a latent
that no penalty reaches can undo that. What Gated SAEs gain over it is not
shrinkage. At release it is a JumpReLU SAE with the threshold max(shift, 0).

Where sources differ or are silent, and what is done here:
* The paper's own text was not at hand. Summaries of it say that gain and shift
  are learned on a ReLU SAE that is frozen; nothing is said of how long. Here
  both learn in one run, and the ReLU SAE does not notice: its parameters get
  the gradients that they would get alone.
* Whether the shift is added before or after the gain, and whether it may turn
  latents off (here it may), is not said; exp(r_mag) * z + shift takes in both.
* What training reports (L0, FVU) is the ReLU's; evaluation and release are of
  the rescaled latents.
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
  """A ReLU SAE, and a gain and a shift of its latents."""

  variant: ClassVar[str] = 'relu_rescaled'

  config: Config

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Start with the ReLU's latents."""
    del initial_threshold, target_l0
    zeros = jnp.zeros(self.width, jnp.float32)
    return {'r_mag': zeros, 'shift': zeros}

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Rescale and shift the ReLU's latents."""
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
    """Train the ReLU SAE as if it were alone."""
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
    """Fit gain and shift to the targets, all else as it is."""
    del latents
    frozen = jax.lax.stop_gradient((params, pre_acts))
    fitted = frozen[0] | {name: params[name] for name in ('r_mag', 'shift')}
    moved = self.activate(fitted, frozen[1])
    errors = self.decode(fitted, moved, rows.inputs) - rows.targets
    return base.kept_mean(jnp.square(errors).sum(axis=-1), rows.keep)

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Scale the shift with the pre-activations."""
    return {'r_mag': params['r_mag'], 'shift': params['shift'] * scale}

  def to_jumprelu(
      self, params: base.Params
  ) -> tuple[jumprelu.JumpRelu, base.Params]:
    """The moved pre-activations; z > 0 is where they exceed the shift."""
    gain = jnp.exp(params['r_mag'])
    return jumprelu.as_jumprelu(
        self,
        params,
        threshold=jnp.maximum(params['shift'], 0.0),
        W_enc=params['W_enc'] * gain[None, :],
        b_enc=params['b_enc'] * gain + params['shift'],
    )
