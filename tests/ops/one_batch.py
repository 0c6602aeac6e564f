"""A batch for the fast steps, with the gradients of automatic differentiation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking import exact
from jumprelu import saes
from jumprelu.ops import active_pairs

# Arguments of `make` for each case.
CASES = {
    'pre-encoder bias, log thresholds': {},
    'no pre-encoder bias': {'pre_encoder_bias': False},
    'linear thresholds': {'threshold_parameter': 'linear'},
    'target L0': {'penalty': 'target_l0'},
    'a transcoder': {'transcoder': True},
    'an L0 of 1': {'threshold': 0.33},
    'an L0 of hundreds': {'threshold': 0.001},
    'Zipf frequencies': {'zipf': True},
    'a kernel wider than thresholds': {'threshold': 0.05, 'bandwidth': 0.2},
}
D_IN, D_OUT, WIDTH, ROWS = 96, 80, 1000, 203


@dataclasses.dataclass
class OneBatch:
  """A JumpReLU SAE, a batch with dropped rows, and the oracle's gradients."""

  sae: Any
  params: dict
  batch: active_pairs.Batch
  matrices: active_pairs.Matrices
  settings: active_pairs.Settings
  parts: Any
  grads: dict


def make(
    *,
    threshold=0.15,
    bandwidth=0.05,
    zipf=False,
    transcoder=False,
    penalty='l0',
    **config,
) -> OneBatch:
  """Returns a random batch and the gradients of its loss."""
  rng = np.random.default_rng(0)
  config = saes.jumprelu.Config(bandwidth=bandwidth, penalty=penalty, **config)
  sae = saes.make_sae(
      'jumprelu',
      config,
      d_in=D_IN,
      d_out=D_OUT if transcoder else D_IN,
      width=WIDTH,
      transcoder=transcoder,
  )
  thresholds = threshold * np.exp(0.1 * rng.normal(size=WIDTH))
  if zipf:
    thresholds *= np.linspace(0.3, 2, WIDTH)
  params = _params(sae, thresholds, rng)
  batch = _batch(sae, params, rng)
  parts, grads = exact.differentiate(sae, params, batch)
  matrices = active_pairs.Matrices(
      params['W_enc'].T,
      params['W_dec'],
      # Some rows have missed the decay of their second moments.
      _float32(1e-6 * rng.random((WIDTH, D_IN))),
      _float32(1e-6 * rng.random((WIDTH, sae.d_out))),
      jnp.asarray(rng.integers(1, 4, WIDTH), jnp.int32),
  )
  settings = active_pairs.Settings(
      bandwidth,
      sae.subtracts_decoder_bias,
      penalty == 'target_l0',
      # 1 - b2 is not exact in float32.
      b2=0.999,
  )
  return OneBatch(sae, params, batch, matrices, settings, parts, grads)


def _params(sae, thresholds, rng):
  params = sae.init_params(jax.random.key(0), initial_threshold=1.0)
  if 'log_threshold' in params:
    params['log_threshold'] = _float32(np.log(thresholds))
  else:
    params['threshold'] = _float32(thresholds)
  params['b_enc'] = _float32(0.01 * rng.normal(size=WIDTH))
  b_dec = 0.1 * rng.normal(size=sae.d_out) / np.sqrt(sae.d_out)
  return params | {'b_dec': _float32(b_dec)}


def _batch(sae, params, rng):
  keep = rng.random(ROWS) < 0.9
  x, y = (
      _float32(keep[:, None] * rng.normal(size=(ROWS, d)) / np.sqrt(d))
      for d in (sae.d_in, sae.d_out)
  )
  return active_pairs.Batch(
      pre_acts=jax.jit(sae.pre_acts)(params, x),
      inputs=x,
      targets=y if sae.transcoder else x,
      keep=jnp.asarray(keep),
      threshold=sae.threshold(params),
      b_dec=params['b_dec'],
      coefficient=jnp.float32(0.01),
      target_l0=jnp.float32(20.0),
  )


def _float32(x):
  return jnp.asarray(x, jnp.float32)
