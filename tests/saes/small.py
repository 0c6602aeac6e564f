"""Small SAEs of every variant, and what the tests do with them."""

import functools

import jax
import numpy as np

from jumprelu import saes

D_IN, D_OUT, WIDTH, ROWS = 6, 5, 12, 40


def make(variant, *, transcoder=False, **fields):
  config = saes.VARIANTS[variant][1](**fields)
  return saes.make_sae(
      variant,
      config,
      d_in=D_IN,
      d_out=D_OUT if transcoder else D_IN,
      width=WIDTH,
      transcoder=transcoder,
  )


@functools.partial(jax.jit, static_argnums=0)
def init(sae, key, threshold=0.2):
  return sae.init_params(key, initial_threshold=threshold)


def trained_like(sae, seed=0):
  """Give parameters away from init: every bias is non-zero."""
  params = jax.tree.map(np.asarray, init(sae, jax.random.key(seed)))
  rng = np.random.default_rng(seed)
  for name, value in params.items():
    # Decoder rows keep their unit norm.
    if name != 'W_dec':
      noise = 0.1 * rng.normal(size=value.shape).astype(np.float32)
      params[name] = value + noise
  return params


def rows(seed, size):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(ROWS, size)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def gradients(sae, params, inputs, targets, keep, coefficient=0.01):
  """Give the loss's parts and its gradients."""
  (_, parts), grads = jax.value_and_grad(
      lambda p: sae.loss(
          p,
          inputs,
          targets,
          keep=keep,
          sparsity_coefficient=coefficient,
          target_l0=3.0,
      ),
      has_aux=True,
  )(params)
  return parts, grads


@functools.partial(jax.jit, static_argnums=0)
def run(sae, params, inputs):
  """Give pre-activations, latents and reconstruction."""
  latents = sae.encode(params, inputs)
  return sae.pre_acts(params, inputs), latents, sae.decode(params, latents)


@functools.partial(jax.jit, static_argnums=0)
def linear_threshold(sae, params):
  return sae.threshold(params)
