"""JumpReLU SAEs with Gemma Scope 2's penalty, quadratic in each row's L0.

  penalty = mean over rows of (L0 - target)^2 / (2 * target)
            + frequency_coefficient * sum over latents of p^2 / frequency_scale
  loss = ||x - decode(latents)||^2 + sparsity_coefficient * penalty

where L0 is a row's number of active latents and p is the share of the batch's
rows on which a latent is active. Both are differentiated through the step's
pseudo-derivative; the target is the member's L0. The source is Gemma Scope 2's
technical paper, equation 5. The frequency term follows Google DeepMind's
progress update of March 2025 on dense latents, whose penalty is the sum of
p * (1 + p / scale). Below the target the parabola rewards more latents; at
twice the target its slope equals that of a linear penalty.

The sources differ or are silent on some points, and this module chooses:
* The factor of equation 5 is transcribed as 2 / target, which contradicts its
  description: the gradient at twice the target equals the linear penalty's.
  This module uses 1 / (2 * target), which matches the description.
* Each row's L0 is squared, not the batch's mean. The target loss of JumpReLU
  SAEs (`jumprelu.penalty=target_l0`) squares the mean.
* Gemma Scope 2 gives neither the form nor the coefficient of its secondary
  frequency penalty. This module uses the progress update's addition to L0,
  p^2 / scale, with a scale of 0.1 (OpenMOSS names 0.1 and 0.01).
* Gemma Scope 2 warms the coefficient up over 50,000 steps
  (`--optim.sparsity_warmup_steps`) and nests its SAEs (`matryoshka.py`).
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float
from jumprelu.files import fields
from jumprelu.saes import base, jumprelu


@dataclasses.dataclass(frozen=True)
class Config(jumprelu.ThresholdConfig):
  """Hyper-parameters of a JumpReLU SAE with a quadratic penalty."""

  aims: tuple[float, ...] = fields.field(
      (50.0,), 'Target L0s, one member each; target_l0 overrides them.'
  )
  coefficient: float = fields.field(
      1e-3, 'Sparsity coefficient of members at a target_l0.'
  )
  frequency_coefficient: float = fields.field(
      1.0, 'Weight of dense latents in the penalty; 0 for none.'
  )
  frequency_scale: float = fields.field(
      0.1, 'Firing frequency at which a dense latent costs twice as much.'
  )

  def __post_init__(self):
    super().__post_init__()
    valid = all(0 < aim < math.inf for aim in self.aims) and len(self.aims) > 0
    fields.check(self, 'aims', valid, 'one or more numbers above 0')
    fields.check_positive(self, 'coefficient', 'frequency_scale')
    finite = 0 <= self.frequency_coefficient < math.inf
    fields.check(self, 'frequency_coefficient', finite, 'at least 0')

  def sparsities(
      self, coefficients: Sequence[float], targets: Sequence[float]
  ) -> list[tuple[float, float]]:
    """Returns the members' pairs: each coefficient with each target L0."""
    if targets:
      return [(self.coefficient, target) for target in targets]
    return [(value, aim) for value in coefficients for aim in self.aims]


@dataclasses.dataclass(frozen=True)
class JumpReluQuadratic(jumprelu.Thresholded):
  """A JumpReLU SAE with a penalty on distance to an L0 and on dense latents."""

  variant: ClassVar[str] = 'jumprelu_quadratic'

  config: Config

  def sparsity_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      keep: Bool[Array, ' batch'],
      sparsity_coefficient: base.Scalar,
      target_l0: base.Scalar,
  ) -> Float[Array, '']:
    """Returns the penalty on rows' distances to the target and on frequency."""
    del latents
    config = self.config
    active = self.active(params, pre_acts)
    distance = active.sum(axis=-1) - target_l0
    penalty = base.kept_mean(jnp.square(distance), keep) / (2 * target_l0)
    frequency = base.kept_mean(jnp.asarray(active), keep)
    dense = jnp.square(frequency).sum() / config.frequency_scale
    return sparsity_coefficient * (
        penalty + config.frequency_coefficient * dense
    )
