"""JumpReLU SAEs: a latent is its pre-activation above a learned threshold.

  latents = z H(z - threshold),  penalty = sum of H(z - threshold) over latents

where z are the pre-activations and H is the Heaviside step function (arXiv
2407.14435; arXiv 2408.05147, equations 1-4). By default only the threshold gets
a gradient from the penalty, through the pseudo-derivatives of
`ops/pseudo_derivatives.py`. That module also explains the options `kernel` and
`gradient_to_pre_acts`, which affect training only.
"""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.files import fields
from jumprelu.ops import pseudo_derivatives
from jumprelu.saes import base

THRESHOLD_PARAMETERS = ('log', 'linear')
PENALTIES = ('l0', 'target_l0')


@dataclasses.dataclass(frozen=True)
class ThresholdConfig(base.Config):
  """Hyper-parameters of every JumpReLU SAE; the defaults are Gemma Scope's.

  Bandwidth and threshold are in units of activations scaled to a mean squared
  norm of 1.
  """

  bandwidth: float = fields.field(
      1e-3, "Width of the pseudo-derivatives' kernel."
  )
  initial_threshold: float = fields.field(
      1e-3, 'Threshold of every latent at init.'
  )
  threshold_parameter: str = fields.field(
      'log', 'Trained parameter: log (of the threshold) or linear.'
  )
  kernel: str = fields.field(
      'rectangle',
      "The pseudo-derivatives' kernel: rectangle, triangle, epanechnikov or"
      ' gaussian, from least to most smoothing at the same bandwidth.',
  )
  gradient_to_pre_acts: bool = fields.field(
      False,
      'Let the pseudo-derivatives train the encoder too (an ablation of the'
      ' paper, in which latents die).',
  )

  def __post_init__(self):
    fields.check_positive(self, 'bandwidth', 'initial_threshold')
    fields.check_choice(self, 'threshold_parameter', THRESHOLD_PARAMETERS)
    fields.check_choice(self, 'kernel', pseudo_derivatives.KERNELS)


@dataclasses.dataclass(frozen=True)
class Config(ThresholdConfig):
  """Hyper-parameters of a JumpReLU SAE; the defaults are Gemma Scope's."""

  penalty: str = fields.field(
      'l0',
      'l0: coefficient * L0; target_l0: coefficient * (mean L0 / target - 1)^2',
  )

  def __post_init__(self):
    super().__post_init__()
    fields.check_choice(self, 'penalty', PENALTIES)

  def sparsities(
      self, coefficients: Sequence[float], targets: Sequence[float]
  ) -> list[tuple[float, float]]:
    """Returns (coefficient, target L0) of each member.

    The coefficient of a member with a target is 1.
    """
    if targets:
      return [(1.0, target) for target in targets]
    return super().sparsities(coefficients, targets)


@dataclasses.dataclass(frozen=True)
class Thresholded(base.Sae):
  """An SAE with a learned threshold per latent, for any penalty."""

  config: ThresholdConfig

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Returns `threshold` or `log_threshold`, equal for all latents."""
    del target_l0
    start = jnp.broadcast_to(
        jnp.asarray(initial_threshold, jnp.float32), (self.width,)
    )
    if self.config.threshold_parameter == 'log':
      return {'log_threshold': jnp.log(start)}
    return {'threshold': start}

  def threshold(self, params: base.Params) -> Float[Array, ' latents']:
    """Returns the linear threshold of each latent."""
    if self.config.threshold_parameter == 'log':
      return jnp.exp(params['log_threshold'])
    return params['threshold']

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns the pre-activations above the threshold, else 0."""
    return pseudo_derivatives.jumprelu(
        pre_acts, self.threshold(params), *self._surrogate
    )

  def active(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns 1 for active latents, else 0, with the pseudo-derivative."""
    return pseudo_derivatives.heaviside(
        pre_acts, self.threshold(params), *self._surrogate
    )

  @property
  def _surrogate(self) -> tuple[float, str, bool]:
    """The options of the pseudo-derivatives."""
    config = self.config
    return config.bandwidth, config.kernel, config.gradient_to_pre_acts

  def penalty(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Returns each row's number of active latents."""
    # The pseudo-derivative needs pre-activations, because inactive latents are
    # 0 and no longer show their distance to the threshold.
    del latents
    return self.active(params, pre_acts).sum(axis=-1)

  def folded_config(self) -> base.Config:
    """Returns the folded SAE's config, in which thresholds are linear."""
    config = super().folded_config()
    return dataclasses.replace(config, threshold_parameter='linear')

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Returns the threshold, multiplied like the pre-activations."""
    return {'threshold': self.threshold(params) * scale}

  def to_jumprelu(self, params: base.Params) -> tuple['JumpRelu', base.Params]:
    """Returns the JumpReLU SAE with these linear thresholds."""
    return as_jumprelu(self, params, threshold=self.threshold(params))


@dataclasses.dataclass(frozen=True)
class JumpRelu(Thresholded):
  """The SAE of the paper, with the L0 penalty or a target L0."""

  variant: ClassVar[str] = 'jumprelu'

  config: Config

  def sparsity_term(
      self,
      mean_penalty: Float[Array, ''],
      *,
      sparsity_coefficient: base.Scalar,
      target_l0: base.Scalar,
  ) -> Float[Array, '']:
    """Returns the weighted L0, or its weighted squared distance to a target.

    The distance is relative to the target (appendix of arXiv 2407.14435). It is
    that of the batch's mean L0, not of each row's L0, because rows may differ
    as long as their mean is at the target.
    """
    if self.config.penalty == 'target_l0':
      return sparsity_coefficient * jnp.square(mean_penalty / target_l0 - 1.0)
    return sparsity_coefficient * mean_penalty


def as_jumprelu(
    sae: base.Sae,
    params: base.Params,
    *,
    threshold: Float[Array, ' latents'],
    **changed: Array,
) -> tuple[JumpRelu, base.Params]:
  """Returns a folded SAE as a JumpReLU SAE, and its parameters.

  Args:
    sae: The folded SAE.
    params: Its parameters.
    threshold: The linear thresholds.
    **changed: Parameters that replace those of the folded SAE.
  """
  config = Config(pre_encoder_bias=False, threshold_parameter='linear')
  jumprelu = JumpRelu(
      config, sae.d_in, sae.d_out, sae.width, sae.transcoder, sae.skip
  )
  names = ('W_enc', 'b_enc', 'W_dec', 'b_dec')
  names += ('W_skip',) if sae.skip else ()
  shared = {name: params[name] for name in names}
  return jumprelu, shared | changed | {'threshold': threshold}
