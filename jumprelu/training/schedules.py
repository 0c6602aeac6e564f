"""Schedules: learning rate warm-up and decay, sparsity warm-up."""

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.training.optim import Config, Scalar


def _progress(step: Scalar, length: int | float) -> Float[Array, '']:
  """Give the share of `length` steps that is done before `step`, at most 1."""
  step = jnp.asarray(step, jnp.float32)
  if length <= 0:
    return jnp.ones_like(step)
  return jnp.clip(step / length, 0.0, 1.0)


def learning_rate_at(
    config: Config, step: Scalar, total_steps: int
) -> Float[Array, '']:
  """Give the learning rate's multiplier in (0, 1] at a step counted from 0.

  A cosine from `lr_warmup_start` to 1 over the warm-up (Gemma Scope, section
  3.2), then 1, then, if asked for, a line that would reach 0 at the step after
  the last.
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


def sparsity_at(
    config: Config, step: Scalar, total_steps: int
) -> Float[Array, '']:
  """Give the sparsity coefficient's multiplier: a line from 0 to 1, then 1."""
  length = config.sparsity_warmup_steps
  if length is None:
    length = config.sparsity_warmup_fraction * total_steps
  return _progress(step, length)
