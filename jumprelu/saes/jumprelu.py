"""JumpReLU SAEs: a latent is its pre-activation above a learned threshold.

  latents = z H(z - threshold),  penalty = sum of H(z - threshold) over latents

(arXiv 2407.14435; arXiv 2408.05147, equations 1-4). Only the threshold feels
the penalty, through the pseudo-derivatives of `ops/pseudo.py`.
"""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from jumprelu import errors
from jumprelu.array_typing import Array, Float
from jumprelu.ops import pseudo
from jumprelu.saes import base

THRESHOLD_PARAMETERS = ('log', 'linear')
PENALTIES = ('l0', 'target_l0')


def _field(default, help_text: str):
  return dataclasses.field(default=default, metadata={'help': help_text})


@dataclasses.dataclass(frozen=True)
class Config(base.Config):
  """Hyper-parameters of a JumpReLU SAE; the defaults are Gemma Scope's.

  All are in units of activations whose mean squared norm is 1.
  """

  bandwidth: float = _field(1e-3, "Width of the pseudo-derivatives' kernel.")
  initial_threshold: float = _field(1e-3, 'Threshold of every latent at init.')
  threshold_parameter: str = _field(
      'log', 'What is trained: log (of the threshold) or linear.'
  )
  penalty: str = _field(
      'l0',
      'l0: coefficient * L0; target_l0: coefficient * (mean L0 / target - 1)^2',
  )

  def __post_init__(self):
    for name, value in (
        ('bandwidth', self.bandwidth),
        ('initial_threshold', self.initial_threshold),
    ):
      if not 0 < value < math.inf:
        raise errors.UserError(f'jumprelu.{name} must be above 0, got {value}')
    for name, value, choices in (
        ('threshold_parameter', self.threshold_parameter, THRESHOLD_PARAMETERS),
        ('penalty', self.penalty, PENALTIES),
    ):
      if value not in choices:
        raise errors.UserError(
            f'jumprelu.{name} must be {" or ".join(choices)}, got {value!r}'
        )


@dataclasses.dataclass(frozen=True)
class JumpRelu(base.Sae):
  """An SAE with one learned threshold a latent."""

  variant: ClassVar[str] = 'jumprelu'

  config: Config

  def init_own_params(self, *, initial_threshold: base.Scalar) -> base.Params:
    """Start every latent at one threshold (a traced value per member)."""
    start = jnp.broadcast_to(
        jnp.asarray(initial_threshold, jnp.float32), (self.width,)
    )
    if self.config.threshold_parameter == 'log':
      return {'log_threshold': jnp.log(start)}
    return {'threshold': start}

  def threshold(self, params: base.Params) -> Float[Array, ' latents']:
    """Give the linear threshold of each latent."""
    if self.config.threshold_parameter == 'log':
      return jnp.exp(params['log_threshold'])
    return params['threshold']

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Keep the pre-activations above the threshold."""
    return pseudo.jumprelu(
        pre_acts, self.threshold(params), self.config.bandwidth
    )

  def penalty(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Count each row's active latents, from its pre-activations."""
    del latents  # Below the threshold they are 0, whatever the distance was.
    active = pseudo.heaviside(
        pre_acts, self.threshold(params), self.config.bandwidth
    )
    return active.sum(axis=-1)

  def sparsity_term(
      self,
      mean_penalty: Float[Array, ''],
      *,
      sparsity_coefficient: base.Scalar,
      target_l0: base.Scalar,
  ) -> Float[Array, '']:
    """Weigh L0, or its squared relative distance to a target.

    The target form (appendix of arXiv 2407.14435) squares the mean over the
    whole batch, not each row's count: rows may differ, their mean is asked for.
    """
    if self.config.penalty == 'target_l0':
      return sparsity_coefficient * jnp.square(mean_penalty / target_l0 - 1.0)
    return sparsity_coefficient * mean_penalty

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> tuple['JumpRelu', base.Params]:
    """Scale the threshold with the pre-activations; it becomes linear."""
    config = dataclasses.replace(
        self.config, pre_encoder_bias=False, threshold_parameter='linear'
    )
    folded = dataclasses.replace(self, config=config)
    return folded, {'threshold': self.threshold(params) * scale}
