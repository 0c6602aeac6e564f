"""Every variant recovers a planted dictionary."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import saes
from jumprelu.ops import rows
from jumprelu.training import optim
from tests.saes import small

# What leaves about two latents a row: the first where the penalty is an L0, which
# the sizes of latents do not enter, the others where it is a sum of them. One of
# them must do; where it is known which, no other is tried.
_COEFFICIENTS = (0.03, 0.2, 0.6)
_KNOWN = {'relu': 0.2, 'relu_rescaled': 0.2, 'gated': 0.6}


@pytest.fixture(params=small.variants(fast=('jumprelu',)))
def variant(request):
  return request.param


@functools.partial(jax.jit, static_argnames=('seed', 'steps', 'batch'))
def planted_batches(dictionary, seed, *, steps, batch):
  """Draw sparse sums of dictionary rows, scaled to unit mean squared norm."""
  codes_key, sizes_key = jax.random.split(jax.random.key(seed))
  shape = (steps, batch, len(dictionary))
  codes = jax.random.bernoulli(codes_key, 2.0 / len(dictionary), shape)
  sizes = jax.random.uniform(sizes_key, shape, minval=0.5, maxval=1.5)
  batches = (codes * sizes) @ dictionary
  return batches / jnp.sqrt(jnp.square(batches).sum(axis=-1).mean())


def train(sae, params, batches, *, learning_rate, coefficient):
  steps = len(batches)
  config = optim.Config(
      lr_warmup_steps=steps // 10,
      sparsity_warmup_steps=steps // 5,
      lr_decay=0.2,
  )
  keep = jnp.ones(batches.shape[1], bool)

  def one_step(carry, item):
    params, nu = carry
    step, inputs = item
    grads, parts = jax.grad(
        lambda p: sae.loss(
            p,
            inputs,
            inputs,
            keep=keep,
            sparsity_coefficient=coefficient
            * optim.sparsity_at(config, step, steps),
            target_l0=small.TARGET_L0,
        ),
        has_aux=True,
    )(params)
    rate = learning_rate * optim.learning_rate_at(config, step, steps)
    params, nu = optim.update(
        params,
        nu,
        grads,
        step=step,
        learning_rate=rate,
        config=config,
        unit_norm=sae.unit_norm_decoder,
    )
    return (params | parts.carried, nu), (parts.reconstruction, parts.l0)

  (params, _), history = jax.jit(
      lambda carry, items: jax.lax.scan(one_step, carry, items)
  )((params, optim.init_nu(params)), (jnp.arange(steps), batches))
  return params, history


def _coefficients(variant):
  plain = variant.removeprefix('matryoshka_')
  return (_KNOWN[plain],) if plain in _KNOWN else _COEFFICIENTS


def test_a_planted_dictionary_is_recovered(variant):
  rng = np.random.default_rng(0)
  dictionary = rng.normal(size=(32, 32)).astype(np.float32)
  dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
  # All directions are used alike: no fewer latents than these could nest.
  config = small.make(variant, bandwidth=0.1, prefix_shares=(0.75,)).config
  sae = saes.make_sae(variant, config, d_in=32, d_out=32, width=64)
  found = []
  for coefficient in _coefficients(variant):
    params, (reconstruction, l0) = train(
        sae,
        small.init(sae, jax.random.key(0), 0.1),
        planted_batches(dictionary, 1, steps=600, batch=256),
        learning_rate=1e-2,
        coefficient=coefficient,
    )
    # Some variants' rows have norms of their own.
    cosines = dictionary @ np.asarray(rows.unit(params['W_dec'])).T
    means = (
        cosines.max(axis=1).mean(),
        reconstruction[-50:].mean(),
        l0[-50:].mean(),
    )
    found.append(tuple(map(float, means)))
    # Each row is a sum of two on average; an L0 near the width would be no
    # dictionary, and one near 0 no reconstruction.
    if means[0] > 0.9 and means[1] < 0.06 and 1 < means[2] < 4:
      return
  pytest.fail(f'cosine, squared error and L0 are {found}')
