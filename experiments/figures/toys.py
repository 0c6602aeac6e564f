"""Training of SAEs on synthetic activations, without a language model.

The SAEs, their losses and the optimiser come from the package. Seeds and
coefficients are trained together with `jax.vmap`.
"""

import dataclasses
import functools
from typing import Any


@dataclasses.dataclass(frozen=True)
class Training:
  """Steps, batch size and learning rate of a toy's training."""

  steps: int = 500
  batch: int = 256
  learning_rate: float = 2e-2


def record(variants: tuple[str, ...], width: int = 1) -> dict[str, Any]:
  """Returns the columns of a toy's table that name model and training."""
  training = Training()
  return {
      'model': 'synthetic activations',
      'variant': ' + '.join(variants),
      'width': width,
      'training_rows': training.steps * training.batch,
  }


def make_sae(variant: str, *, size: int = 1, width: int = 1, **fields: Any):
  """Returns an SAE of `size` dimensions; `fields` are fields of its config."""
  from jumprelu import saes

  _, config = saes.VARIANTS[variant]
  return saes.make_sae(
      variant,
      config(**fields),
      d_in=size,
      d_out=size,
      width=width,
      transcoder=False,
  )


def train(
    sae: Any,
    starts: Any,
    batches: tuple[Any, Any],
    *,
    coefficients: Any,
    training: Training | None = None,
) -> Any:
  """Returns trained parameters with leading axes [seeds, coefficients].

  Args:
    sae: The SAE.
    starts: The initial parameters, [seeds, ...] each.
    batches: Inputs and targets, [seeds, steps, batch, size] each.
    coefficients: The sparsity coefficients, [coefficients].
    training: Steps, batch size and learning rate.
  """
  import jax
  import jax.numpy as jnp

  training = training or Training()

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, 0, None))
  @functools.partial(jax.vmap, in_axes=(None, None, 0))
  def fit(start, batches, coefficient):
    return _fit(sae, start, batches, coefficient, training)

  return fit(starts, batches, jnp.asarray(coefficients, jnp.float32))


def _fit(sae, start, batches, coefficient, training):
  """Trains one SAE on batches (inputs, targets), [steps, batch, ...] each."""
  import jax
  import jax.numpy as jnp

  from jumprelu.training import optim, schedules

  config = optim.Config(
      learning_rate=training.learning_rate,
      b2=0.99,
      lr_warmup_steps=training.steps // 10,
      lr_decay=0.7,
      sparsity_warmup_steps=training.steps // 5,
  )
  keep = jnp.ones(training.batch, bool)

  def one_step(carry, item):
    params, nu = carry
    step, (inputs, targets) = item
    factor = schedules.sparsity_at(config, step, training.steps)
    grads, parts = jax.grad(sae.loss, has_aux=True)(
        params,
        inputs,
        targets,
        keep=keep,
        sparsity_coefficient=coefficient * factor,
        target_l0=1.0,
    )
    rate = schedules.learning_rate_at(config, step, training.steps)
    params, nu = optim.update(
        params,
        nu,
        grads,
        step=step,
        learning_rate=rate * config.learning_rate,
        config=config,
        unit_norm=sae.unit_norm_decoder,
    )
    return (params | parts.carried, nu), None

  items = jnp.arange(training.steps), batches
  carry = start, optim.init_nu(start)
  (params, _), _ = jax.lax.scan(one_step, carry, items)
  return params
