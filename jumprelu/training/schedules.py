"""Schedules of the learning rate and of the sparsity coefficient."""

import math

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.training.optim import Config, Scalar


def _progress(step: Scalar, length: int | float) -> Float[Array, '']:
  """Returns `step / length`, clipped to [0, 1]; 1 if `length` is 0."""
  step = jnp.asarray(step, jnp.float32)
  if length <= 0:
    return jnp.ones_like(step)
  return jnp.clip(step / length, 0.0, 1.0)


def learning_rate_at(
    config: Config, step: Scalar, total_steps: int
) -> Float[Array, '']:
  """Returns the learning rate's multiplier in (0, 1] at a step counted from 0.

  The multiplier follows a cosine from `lr_warmup_start` to 1 during the warm-up
  (Gemma Scope, section 3.2) and is then 1. If `lr_decay` is above 0, it also
  falls linearly over the last `lr_decay * total_steps` steps, and would reach 0
  one step after the last.
  """
  length = config.lr_warmup_steps
  if length is None:
    length = config.lr_warmup_fraction * total_steps
  rise = (1 - jnp.cos(jnp.pi * _progress(step, length))) / 2
  warmup = config.lr_warmup_start + (1 - config.lr_warmup_start) * rise
  decay_steps = config.lr_decay * total_steps
  if not decay_steps:
    return warmup
  left = total_steps - jnp.asarray(step, jnp.float32)
  return warmup * jnp.clip(left / decay_steps, 0.0, 1.0)


def decay_start(config: Config, total_steps: int) -> int:
  """Returns the first step whose learning rate a longer run would not have.

  Without a decay this is `total_steps`.
  """
  decay_steps = config.lr_decay * total_steps
  if not decay_steps:
    return total_steps
  return max(math.floor(total_steps - decay_steps) + 1, 0)


def sparsity_at(
    config: Config, step: Scalar, total_steps: int
) -> Float[Array, '']:
  """Returns the sparsity coefficient's multiplier at a step counted from 0.

  The multiplier rises linearly from 0 to 1 during the warm-up, and is then 1.
  """
  length = config.sparsity_warmup_steps
  if length is None:
    length = config.sparsity_warmup_fraction * total_steps
  return _progress(step, length)
