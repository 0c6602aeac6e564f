"""JumpReLU SAEs with Gemma Scope 2's penalty, quadratic in each row's L0.

  penalty = mean over rows of (L0 - target)^2 / (2 * target)
            + frequency_coefficient * sum over latents of p^2 / frequency_scale
  loss = ||x - decode(latents)||^2 + sparsity_coefficient * penalty

where L0 is a row's number of active latents, target is the member's target L0,
and p is the share of the batch's rows on which a latent is active. L0 and p are
differentiated through the pseudo-derivative of the step function. The first
term is equation 5 of Gemma Scope 2's technical paper. Below the target it
rewards additional active latents; at twice the target its slope equals that of
a linear penalty. The second term follows Google DeepMind's progress update of
March 2025 on dense latents, whose penalty is the sum of p * (1 + p / scale).

The sources differ or are silent on some points. This module chooses as follows:
* Factor: equation 5, as it was transcribed for this package, has the factor
  2 / target. By the paper's description, however, the slope at twice the target
  equals that of a linear penalty. This module uses 1 / (2 * target), which
  agrees with the description.
* Squares: this module squares the distance of each row's L0 to the target. The
  target loss of JumpReLU SAEs (`jumprelu.penalty=target_l0`) squares that of
  the batch's mean L0.
* Frequency: Gemma Scope 2 gives neither the form nor the coefficient of its
  frequency penalty. This module uses the term that the progress update adds to
  L0, p^2 / scale, with a scale of 0.1 (OpenMOSS mentions 0.1 and 0.01).
* Schedule: Gemma Scope 2 warms the coefficient up over 50,000 steps. Here
  `--optim.sparsity_warmup_steps` sets their number.
* Prefixes: Gemma Scope 2 trains its SAEs as Matryoshka SAEs. This variant has
  no Matryoshka form; `matryoshka.py` has those of other variants.
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
      (50.0,), 'Target L0s, one member per value; target_l0 overrides them.'
  )
  coefficient: float = fields.field(
      1e-3, 'Sparsity coefficient of the members that target_l0 makes.'
  )
  frequency_coefficient: float = fields.field(
      1.0, 'Weight of dense latents in the penalty; 0 for none.'
  )
  frequency_scale: float = fields.field(
      0.1,
      "Firing frequency at which a latent's frequency term equals its part of"
      ' the mean L0.',
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
    """Returns (coefficient, target L0) of each member.

    Without `targets`, there is a member for each coefficient and each aim.
    """
    if targets:
      return [(self.coefficient, target) for target in targets]
    return [(value, aim) for value in coefficients for aim in self.aims]


@dataclasses.dataclass(frozen=True)
class JumpReluQuadratic(jumprelu.Thresholded):
  """A JumpReLU SAE that penalises distance to an L0, and dense latents."""

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
    """Returns the weighted sum of the quadratic and the frequency penalty."""
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
