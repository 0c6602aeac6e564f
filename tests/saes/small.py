"""Small SAEs of every variant, and shared test helpers."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jumprelu import saes

D_IN, D_OUT, WIDTH, ROWS = 6, 5, 12, 40
TARGET_L0 = 3.0

# Variants in the fast tests. The others reuse the code of these, apart from
# their losses, so they are tested with the slow tests.
_FAST = ('jumprelu', 'relu', 'gated', 'topk', 'batch_topk')


def variants(fast=_FAST):
  """Returns every variant of the table, as parameters of a test."""
  return [
      pytest.param(v, marks=() if v in fast else pytest.mark.slow)
      for v in saes.VARIANTS
  ]


def make(variant, *, transcoder=False, skip=False, **fields):
  """Returns an SAE; fields that its variant lacks are ignored."""
  config_cls = saes.VARIANTS[variant][1]
  names = {f.name for f in dataclasses.fields(config_cls)}
  config = config_cls(**{k: v for k, v in fields.items() if k in names})
  return saes.make_sae(
      variant,
      config,
      d_in=D_IN,
      d_out=D_OUT if transcoder else D_IN,
      width=WIDTH,
      transcoder=transcoder,
      skip=skip,
  )


def init(sae, key, threshold=0.2):
  return sae.init_params(key, initial_threshold=threshold, target_l0=TARGET_L0)


def trained_like(sae, seed=0):
  """Returns parameters as if trained: noisy, non-zero biases, after a batch."""
  params = jax.tree.map(np.asarray, init(sae, jax.random.key(seed)))
  rng = np.random.default_rng(seed)
  for name, value in params.items():
    # Decoder rows keep their unit norm.
    if name != 'W_dec' and name not in sae.untrained:
      noise = 0.1 * rng.normal(size=value.shape).astype(np.float32)
      params[name] = value + noise
  if not sae.untrained:
    return params
  batch = rows(9, sae.d_in), rows(8, sae.d_out), np.ones(ROWS, bool)
  parts, _ = gradients(sae, params, *batch)
  return params | jax.tree.map(np.asarray, parts.carried)


def rows(seed, size):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(ROWS, size)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def gradients(
    sae, params, inputs, targets, keep, *, coefficient=0.01, silent=None
):
  """Returns the loss's parts and its gradients."""
  (_, parts), grads = jax.value_and_grad(
      lambda p: sae.loss(
          p,
          inputs,
          targets,
          keep=keep,
          sparsity_coefficient=coefficient,
          target_l0=TARGET_L0,
          silent=silent,
      ),
      has_aux=True,
  )(params)
  return parts, grads


@functools.partial(jax.jit, static_argnums=0)
def run(sae, params, inputs):
  """Returns pre-activations, latents and reconstruction."""
  latents = sae.encode(params, inputs)
  return (
      sae.pre_acts(params, inputs),
      latents,
      sae.decode(params, latents, inputs),
  )


def assert_equation(sae, numpy_loss, *, silent=None, to_threshold=None):
  """Checks an SAE's loss and its gradients against a formula in NumPy.

  `numpy_loss(params, constants, inputs, targets)` returns the mean loss; values
  that the paper does not differentiate come from `constants`. Gradients are
  compared along one direction per parameter. The pseudo-gradient of a log
  threshold is compared with `to_threshold(params, inputs, targets)` times the
  threshold.
  """
  params = trained_like(sae)
  inputs, targets = rows(1, sae.d_in), rows(2, sae.d_out)
  keep = np.arange(ROWS) % 4 != 0
  parts, grads = gradients(
      sae, params, inputs, targets, keep, coefficient=0.1, silent=silent
  )
  exact = {name: np.float64(value) for name, value in params.items()}
  batch = np.float64(inputs[keep]), np.float64(targets[keep])
  loss = numpy_loss(exact, exact, *batch)
  np.testing.assert_allclose(parts.loss, loss, rtol=1e-5)
  total = parts.reconstruction + parts.penalty + parts.auxiliary
  np.testing.assert_allclose(total, loss, rtol=1e-5)
  rng = np.random.default_rng(5)
  if to_threshold is not None:
    theta = np.exp(exact.pop('log_threshold'))
    expected = to_threshold(exact | {'threshold': theta}, *batch) * theta
    np.testing.assert_allclose(
        grads['log_threshold'], expected, atol=1e-5 * np.abs(expected).max()
    )
    exact['log_threshold'] = np.log(theta)
  for name, value in exact.items():
    if name in sae.untrained or name == 'log_threshold':
      continue
    direction = rng.normal(size=value.shape)
    up, down = (
        numpy_loss(exact | {name: value + h * direction}, exact, *batch)
        for h in (1e-6, -1e-6)
    )
    size = np.linalg.norm(grads[name]) * np.linalg.norm(direction)
    got = np.sum(np.float64(grads[name]) * direction)
    np.testing.assert_allclose(
        got, (up - down) / 2e-6, rtol=0, atol=1e-5 * size, err_msg=name
    )
