"""Gemma Scope's optimiser: Adam with beta1 = 0, and decoder rows of unit norm.

Gemma Scope (arXiv 2408.05147, section 3.2) removes the part of the decoder's
gradient that is parallel to the decoder's rows before Adam, and scales the rows
back to unit norm after it. With beta1 = 0 the first moment *is* the gradient,
so only the second moment, `nu`, is stored.

The functions are for one SAE; `jax.vmap` maps them over the members of a group.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Float, Num
from jumprelu.files import fields
from jumprelu.ops import adam
from jumprelu.ops import unit_norm as unit_norm_lib

# The smallest value of thresholds that are stored directly, not as logarithms.
# A latent with a negative threshold would fire on negative pre-activations, and
# releases accept only positive thresholds. A threshold at this minimum still
# learns, because its gradient comes from pre-activations on both sides.
MIN_THRESHOLD = 1e-6

Params = dict[str, Array]
Scalar = int | float | np.number | Num[Array, '']


@dataclasses.dataclass(frozen=True)
class Config:
  """The config of optimiser and schedules; the defaults are Gemma Scope's."""

  learning_rate: float = fields.field(
      7e-5, 'Learning rate after the warm-up; that of scaled depends on tokens.'
  )
  b2: float = fields.field(0.999, "Decay of Adam's second moment.")
  eps: float = fields.field(
      1e-8, "Added to the square root of Adam's second moment."
  )
  update_clip: float = fields.field(
      0.0,
      "Largest root mean square of a latent's update, divided by the learning"
      ' rate; 0: no limit.',
  )
  lr_warmup_steps: int | None = fields.field(
      1000,
      'Steps of learning rate warm-up; none: lr_warmup_fraction is used.',
  )
  lr_warmup_fraction: float = fields.field(
      0.0,
      'Share of the run that is learning rate warm-up, if lr_warmup_steps is'
      ' none.',
  )
  lr_warmup_start: float = fields.field(
      0.1, 'Share of the learning rate at which the cosine warm-up starts.'
  )
  lr_decay: float = fields.field(
      0.0,
      'Share of the run, at its end, in which the learning rate decays linearly'
      ' to 0; 0: no decay.',
  )
  sparsity_warmup_steps: int | None = fields.field(
      10_000,
      'Steps of sparsity warm-up; none: sparsity_warmup_fraction is used.',
  )
  sparsity_warmup_fraction: float = fields.field(
      0.0,
      'Share of the run that is linear sparsity warm-up, if'
      ' sparsity_warmup_steps is none.',
  )

  def __post_init__(self):
    lr, start = self.learning_rate, self.lr_warmup_start
    fields.require('optim.learning_rate', lr, 0 < lr < math.inf, 'above 0')
    fields.require(
        'optim.b2', self.b2, 0 < self.b2 < 1, 'between 0 and 1, both excluded'
    )
    fields.require('optim.eps', self.eps, 0 < self.eps < math.inf, 'above 0')
    clip = self.update_clip
    fields.require(
        'optim.update_clip', clip, 0 <= clip < math.inf, 'at least 0'
    )
    fields.require(
        'optim.lr_warmup_start', start, 0 < start <= 1, 'above 0 and at most 1'
    )
    fields.require(
        'optim.lr_decay', self.lr_decay, 0 <= self.lr_decay <= 1, 'from 0 to 1'
    )
    for name, steps, fraction in (
        ('lr_warmup', self.lr_warmup_steps, self.lr_warmup_fraction),
        (
            'sparsity_warmup',
            self.sparsity_warmup_steps,
            self.sparsity_warmup_fraction,
        ),
    ):
      valid = steps is None or steps >= 0
      fields.require(f'optim.{name}_steps', steps, valid, 'at least 0, or none')
      fields.require(
          f'optim.{name}_fraction', fraction, 0 <= fraction <= 1, 'from 0 to 1'
      )


def init_nu(params: Params) -> Params:
  """Returns the initial second moments, which are zero, by parameter."""
  return {name: jnp.zeros_like(value) for name, value in params.items()}


def correction(config: Config, step: Scalar) -> Float[Array, '']:
  """Returns 1 - b2^t for a step counted from 0, where t = step + 1."""
  # `expm1` because in float32 1 - 0.999 is wrong in the fifth digit.
  t = jnp.asarray(step, jnp.float32) + 1.0
  return -jnp.expm1(t * math.log(config.b2))


def update(
    params: Params,
    nu: Params,
    grads: Params,
    *,
    step: Scalar,
    learning_rate: Scalar,
    config: Config,
    unit_norm: bool = True,
) -> tuple[Params, Params]:
  """Returns parameters and second moments after one step of `ops.adam`.

  A parameter named `threshold` is kept at or above `MIN_THRESHOLD`.

  Args:
    params: The parameters of one SAE.
    nu: The second moments, by parameter.
    grads: The gradients, by parameter.
    step: The number of the step, counted from 0.
    learning_rate: The learning rate, with its schedule applied.
    config: The optimiser's config.
    unit_norm: Whether `params` has a decoder whose rows keep unit norm.
      Otherwise `W_dec` is updated like any other parameter.
  """
  if unit_norm:
    across = unit_norm_lib.project(grads['W_dec'], params['W_dec'])
    grads = grads | {'W_dec': across}
  adam_step = functools.partial(
      adam.adam,
      learning_rate=learning_rate,
      correction=correction(config, step),
      b2=config.b2,
      eps=config.eps,
      clip=config.update_clip,
  )
  new_params, new_nu = {}, {}
  for name, value in params.items():
    new_params[name], new_nu[name] = adam_step(
        value, nu[name], grads[name], axis=_clip_axis(name, value.ndim)
    )
  if unit_norm:
    new_params['W_dec'] = unit_norm_lib.unit(new_params['W_dec'])
  if 'threshold' in new_params:
    new_params['threshold'] = jnp.maximum(
        new_params['threshold'], MIN_THRESHOLD
    )
  return new_params, new_nu


def _clip_axis(name: str, rank: int) -> int | tuple[int, ...]:
  """Returns the axes over which the update of one latent is averaged.

  Encoders have a column for each latent, the decoder a row, and vectors over
  latents a number. `b_dec` and the rows of a skip connection, which no latent
  has, are averaged as a whole.
  """
  if rank == 2 and name not in ('W_dec', 'W_skip'):
    return 0
  return -1 if rank == 2 or name == 'b_dec' else ()
