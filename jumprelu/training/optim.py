"""Adam without a first moment, on the sphere: Gemma Scope's optimiser.

Gemma Scope (arXiv 2408.05147, section 3.2) trains with Adam, beta1 = 0, removes
the part of the decoder's gradient that is parallel to its rows before Adam, and
scales the rows back to unit norm after. With beta1 = 0 the first moment *is*
the gradient, so only the second, `nu`, is stored.

Everything is for one SAE; `jax.vmap` over a `members` axis makes it a group's.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.array_typing import Array, Float, Num
from jumprelu.ops import adam
from jumprelu.ops import unit_norm as unit_norm_lib

# A linear threshold that Adam carries to zero or below would make a latent
# fire on negative pre-activations, and every released threshold is positive.
# Near the floor it still learns: the kernel sees both sides of it.
MIN_THRESHOLD = 1e-6

Params = dict[str, Array]
Scalar = int | float | np.number | Num[Array, '']


def _field(default, help_text: str):
  return dataclasses.field(default=default, metadata={'help': help_text})


@dataclasses.dataclass(frozen=True)
class Config:
  """Optimiser and schedules; the defaults are Gemma Scope's."""

  learning_rate: float = _field(7e-5, 'Learning rate after the warm-up.')
  b2: float = _field(0.999, "Decay of Adam's second moment.")
  eps: float = _field(1e-8, "Added to the root of Adam's second moment.")
  lr_warmup_steps: int | None = _field(
      1000, 'Steps of learning rate warm-up; none: lr_warmup_fraction counts.'
  )
  lr_warmup_fraction: float = _field(
      0.0, 'Share of the run for learning rate warm-up, if no steps are set.'
  )
  lr_warmup_start: float = _field(
      0.1, 'Share of the learning rate with which the cosine warm-up starts.'
  )
  lr_decay: float = _field(
      0.0, 'Share of the run, at its end, with linear decay to 0; 0 for none.'
  )
  sparsity_warmup_steps: int | None = _field(
      10_000,
      'Steps of sparsity warm-up; none: sparsity_warmup_fraction counts.',
  )
  sparsity_warmup_fraction: float = _field(
      0.0, 'Share of the run for linear sparsity warm-up, if no steps are set.'
  )

  def __post_init__(self):
    lr, start = self.learning_rate, self.lr_warmup_start
    _check('learning_rate', lr, 0 < lr < math.inf, 'above 0')
    _check('b2', self.b2, 0 < self.b2 < 1, 'between 0 and 1, both excluded')
    _check('eps', self.eps, 0 < self.eps < math.inf, 'above 0')
    _check('lr_warmup_start', start, 0 < start <= 1, 'above 0 and at most 1')
    _check('lr_decay', self.lr_decay, 0 <= self.lr_decay <= 1, 'from 0 to 1')
    for name, steps, fraction in (
        ('lr_warmup', self.lr_warmup_steps, self.lr_warmup_fraction),
        (
            'sparsity_warmup',
            self.sparsity_warmup_steps,
            self.sparsity_warmup_fraction,
        ),
    ):
      valid = steps is None or steps >= 0
      _check(f'{name}_steps', steps, valid, 'at least 0, or none')
      _check(f'{name}_fraction', fraction, 0 <= fraction <= 1, 'from 0 to 1')


def _check(name: str, value, valid: bool, rule: str) -> None:
  if not valid:
    raise errors.UserError(f'optim.{name} must be {rule}, got {value}')


def init_nu(params: Params) -> Params:
  """Make the optimiser's only state: a second moment of zero a parameter."""
  return {name: jnp.zeros_like(value) for name, value in params.items()}


def correction(config: Config, step: Scalar) -> Float[Array, '']:
  """Give 1 - b2^t of a step counted from 0, where t is counted from 1."""
  # In float32, 1 - 0.999 would be wrong in the fifth digit.
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
  """Take one step; `step` counts from 0, `learning_rate` has its schedule in.

  Adam (`ops.rows`) with t = step + 1. Without `unit_norm` decoder rows are
  parameters like any other.
  """
  if unit_norm:
    across = unit_norm_lib.project(grads['W_dec'], params['W_dec'])
    grads = grads | {'W_dec': across}
  take = functools.partial(
      adam.adam,
      learning_rate=learning_rate,
      correction=correction(config, step),
      b2=config.b2,
      eps=config.eps,
  )
  new_params, new_nu = {}, {}
  for name, value in params.items():
    new_params[name], new_nu[name] = take(value, nu[name], grads[name])
  if unit_norm:
    new_params['W_dec'] = unit_norm_lib.unit(new_params['W_dec'])
  if 'threshold' in new_params:
    new_params['threshold'] = jnp.maximum(
        new_params['threshold'], MIN_THRESHOLD
    )
  return new_params, new_nu
