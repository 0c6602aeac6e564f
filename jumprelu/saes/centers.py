"""Initial biases for activations whose mean is far from zero."""

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Float
from jumprelu.saes import base

# The biases of pre-activations; only Gated SAEs have the second.
_BIASES = 'b_enc', 'b_mag'


def start_at(
    sae: base.Sae,
    params: base.Params,
    *,
    inputs: Float[jax.Array, ' model'],
    targets: Float[jax.Array, ' target_model'],
) -> base.Params:
  """Returns initial parameters with the biases of centered activations.

  The reconstruction without active latents is the mean of targets, and
  pre-activations do not depend on the mean of inputs.

  Args:
    sae: The SAE.
    params: The result of `sae.init_params`.
    inputs: The mean of inputs.
    targets: The mean of targets.
  """
  params = params | {'b_dec': targets}
  if sae.subtracts_decoder_bias:
    return params
  shift = jnp.matmul(
      inputs, params['W_enc'], precision=jax.lax.Precision.HIGHEST
  )
  return params | {x: params[x] - shift for x in _BIASES if x in params}
