"""Every variant recovers a planted dictionary."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import saes
from jumprelu.ops import unit_norm
from jumprelu.training import optim, schedules
from tests.saes import small

# For each variant: a sparsity coefficient that leaves about two latents per row,
# as planted, and the squared error and L0 that result. A coefficient five times
# as large or as small changes these results. The TopK variants have no
# coefficient, because their k sets the L0.
_PINNED = {
    'jumprelu': (0.03, 0.0112, 2.10),
    'relu': (0.2, 0.0342, 3.25),
    'relu_rescaled': (0.2, 0.0342, 3.25),
    'gated': (0.6, 0.0179, 2.19),
    'matryoshka_jumprelu': (0.12, 0.0114, 1.98),
    'matryoshka_relu': (0.2, 0.0172, 3.86),
    'matryoshka_gated': (0.6, 0.0138, 2.10),
    'jumprelu_quadratic': (0.03, 0.0108, 1.99),
    'jumprelu_tanh': (0.03, 0.0198, 1.92),
    'topk': (0.0, 0.0570, 2.44),
    'batch_topk': (0.0, 0.0072, 3.00),
    'matryoshka_topk': (0.0, 0.0584, 2.96),
    'matryoshka_batch_topk': (0.0, 0.0106, 3.00),
}


@pytest.fixture(params=small.variants(fast=('jumprelu',)))
def variant(request):
  return request.param


@functools.partial(jax.jit, static_argnames=('seed', 'steps', 'batch'))
def planted_batches(dictionary, seed, *, steps, batch):
  """Returns sparse sums of dictionary rows, of unit mean squared norm."""
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
            * schedules.sparsity_at(config, step, steps),
            target_l0=small.TARGET_L0,
        ),
        has_aux=True,
    )(params)
    rate = learning_rate * schedules.learning_rate_at(config, step, steps)
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


@functools.cache
def _recovered(variant, coefficient):
  """Returns the mean cosine of planted rows, the squared error and the L0."""
  rng = np.random.default_rng(0)
  dictionary = rng.normal(size=(32, 32)).astype(np.float32)
  dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
  # All directions are used equally, so a smaller prefix could not reconstruct.
  config = small.make(variant, bandwidth=0.1, prefix_shares=(0.75,)).config
  sae = saes.make_sae(variant, config, d_in=32, d_out=32, width=64)
  params, (reconstruction, l0) = train(
      sae,
      small.init(sae, jax.random.key(0), 0.1),
      planted_batches(dictionary, 1, steps=600, batch=256),
      learning_rate=1e-2,
      coefficient=coefficient,
  )
  # Some variants have decoder rows without unit norm.
  cosines = dictionary @ np.asarray(unit_norm.unit(params['W_dec'])).T
  return (
      float(cosines.max(axis=1).mean()),
      float(reconstruction[-50:].mean()),
      float(l0[-50:].mean()),
  )


def _is_as_pinned(variant, coefficient):
  _, error, l0 = _PINNED[variant]
  cosine, new_error, new_l0 = _recovered(variant, coefficient)
  # The tolerances exceed the effect of rounding over 600 steps.
  return cosine > 0.9 and new_error < 1.5 * error and abs(new_l0 / l0 - 1) < 0.1


def test_a_planted_dictionary_is_recovered(variant):
  coefficient = _PINNED[variant][0]
  assert _is_as_pinned(variant, coefficient), _recovered(variant, coefficient)


@pytest.mark.parametrize('factor', [0.2, 5])
def test_a_wrong_scale_of_the_penalty_changes_the_result(variant, factor):
  coefficient = _PINNED[variant][0]
  if coefficient:
    assert not _is_as_pinned(variant, factor * coefficient)
  else:  # A variant without a penalty ignores the coefficient.
    assert _recovered(variant, 1.0) == _recovered(variant, 0.0)
