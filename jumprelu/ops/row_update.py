"""One step of the optimiser on rows that may have been left alone for a while."""

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool
from jumprelu.ops import pairs


def update(
    matrices: pairs.Matrices,
    gradients: pairs.Gradients,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
    ok: Bool[Array, ''],
) -> pairs.Matrices:
  """Project, step by Adam and scale back to unit norm, if all is well."""
  decoder = matrices.decoder
  along = jnp.sum(gradients.decoder * decoder, axis=1, keepdims=True)
  across = gradients.decoder - along * decoder
  b2 = settings.b2

  def adam(weights, nu, gradient):
    nu = pairs.decayed(nu, matrices.touched, rates.clock, b2)
    nu = b2 * nu + (1 - b2) * jnp.square(gradient)
    root = jnp.sqrt(nu / rates.correction) + settings.eps
    return weights - rates.learning_rate * gradient / root, nu

  encoder, nu_encoder = adam(
      matrices.encoder, matrices.nu_encoder, gradients.encoder
  )
  decoder, nu_decoder = adam(decoder, matrices.nu_decoder, across)
  norms = jnp.linalg.norm(decoder, axis=1, keepdims=True)
  decoder = decoder / jnp.maximum(norms, jnp.finfo(jnp.float32).tiny)
  touched = jnp.full_like(matrices.touched, rates.clock + 1)
  new = pairs.Matrices(encoder, decoder, nu_encoder, nu_decoder, touched)
  return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, matrices)
