"""Trials of our backends, and of the matrix products of a dense step.

The products alone are a lower bound on the time of a dense step.
"""

from collections.abc import Callable
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking import exact as exact_lib
from experiments.benchmarking import gradients as gradients_lib
from experiments.benchmarking import problem as problem_lib
from jumprelu import errors, lm, saes
from jumprelu.activations import blocks
from jumprelu.ops import active_pairs, dense, products
from jumprelu.training import backends, optim, suite
from jumprelu.training import step as step_lib

_TAP = lm.Tap(0, lm.Site.RESID_POST)
_OPTIM = optim.Config(
    learning_rate=problem_lib.LEARNING_RATE,
    lr_warmup_steps=0,
    sparsity_warmup_steps=0,
)

# The largest number of float64 operations on the host, because more would take
# longer than the benchmark.
_MAX_FLOPS = 4e12

# Runs a number of steps; returns a function that returns L0 and loss of the
# last.
Trial = Callable[[int], Callable[[], tuple[float, float]]]


class Memory:
  """Memory of arrays on a GPU, in bytes."""

  # Imports need no memory of the GPU.
  imports = 0

  def reset(self) -> None:
    """Does nothing, because JAX cannot reset a peak.

    The peak therefore includes the preparation of the state and the choice of
    kernels, if these need more memory than a step.
    """

  def peak(self) -> int:
    """Returns the peak since the start of the process."""
    return jax.devices()[0].memory_stats()['peak_bytes_in_use']


def make(
    name: str,
    problem: dict[str, np.ndarray],
    *,
    device: str,
    precision: str,
) -> Trial:
  """Returns a function that runs trials of one implementation.

  Args:
    name: `ours-BACKEND`, `matmuls` or `encoder`.
    problem: The arrays of `problem.load`; emptied, so that they can be freed.
    device: 'cpu' or 'gpu', which must be JAX's default device.
    precision: The precision of matrix products.
  """
  if jax.default_backend() != device:
    raise errors.UserError(
        f'--device={device}: the device of JAX is {jax.default_backend()}'
    )
  # float32 is set explicitly too, because the default of a GPU is TF32.
  jax.config.update('jax_default_matmul_precision', precision)
  kind, _, backend = name.partition('-')
  if kind != 'ours':
    return _matmuls(problem, encoder_only=kind == 'encoder')
  x, steps = problem.pop('x'), int(problem['steps'])
  group = _group(x.shape[-1], problem['W_dec'].shape[0])
  params = _params(problem)
  problem.clear()
  return trainer(group, params, x, steps=steps, backend=backend)


def trainer(
    group: suite.Group,
    params: dict[str, Any],
    x: np.ndarray,
    *,
    steps: int,
    backend: str,
    silent: Any = 0,
) -> Trial:
  """Returns a function that trains a group of one SAE.

  Args:
    group: The group.
    params: The parameters of the SAE.
    x: The batches, [batches, batch, model].
    steps: The largest number of steps of a trial.
    backend: The backend.
    silent: The number of rows since each latent last fired.
  """
  batches, batch, d_model = x.shape
  segments = step_lib.make_segments(
      [group],
      _OPTIM,
      total_steps=1_000_000,
      batch=batch,
      max_steps=steps,
      backend=backend,
  )
  # The batches are repeated, so that a trial is one segment.
  rows = np.arange(batches * batch, dtype=np.int32)
  block = blocks.Block(
      activations={_TAP: jnp.asarray(x.reshape(1, -1, d_model))},
      inverse_scale={_TAP: jnp.float32(1)},
      keep=jnp.ones((1, batches * batch), bool),
      order=jnp.asarray(np.resize(rows, steps * batch)[None]),
      dropped=jnp.int32(0),
  )
  state = segments.prepare(_state(group, params, silent))

  def trial(count: int) -> Callable[[], tuple[float, float]]:
    nonlocal state
    state, log = segments.run(state, block, jnp.int32(0), jnp.int32(count))
    jax.block_until_ready((state, log))
    metrics = log.groups[group.name]
    return lambda: tuple(metrics[k][count - 1, 0] for k in ('l0', 'loss'))

  return trial


def _group(d_model: int, width: int) -> suite.Group:
  member = suite.Member(
      site='resid_post',
      layer=_TAP.layer,
      width=width,
      variant='jumprelu',
      sparsity_coefficient=problem_lib.COEFFICIENT,
      target_l0=0.0,
      seed=0,
      learning_rate=problem_lib.LEARNING_RATE,
      initial_threshold=1.0,
  )
  config = saes.jumprelu.Config(bandwidth=problem_lib.BANDWIDTH)
  (group,) = suite.make_groups(
      [member], configs={'jumprelu': config}, d_site=lambda _: d_model
  )
  return group


def _params(problem: dict[str, np.ndarray]) -> dict[str, Any]:
  names = ('b_enc', 'W_dec', 'b_dec')
  params = {name: jnp.asarray(problem[name]) for name in names}
  # A transposed copy, because the encoder is [model, latents].
  params['W_enc'] = params['W_dec'].T
  return params | {'log_threshold': jnp.log(jnp.asarray(problem['threshold']))}


def _state(group: suite.Group, params: dict[str, Any], silent: Any) -> Any:
  # Copies, because a segment overwrites its state.
  params = jax.tree.map(lambda x: jnp.array(x)[None], params)
  state = suite.GroupState(
      params=params,
      nu=optim.init_nu(params),
      silent=jnp.full((1, group.sae.width), jnp.asarray(silent), jnp.int32),
      skipped=jnp.zeros(1, jnp.int32),
      failing=jnp.zeros(1, jnp.int32),
  )
  return suite.TrainState(groups={group.name: state}, step=jnp.int32(0))


def _matmuls(problem: dict[str, np.ndarray], *, encoder_only: bool) -> Trial:
  """Returns trials of a dense step's five products, or of the encoder's."""
  x, W_dec = jnp.asarray(problem['x'][0]), jnp.asarray(problem['W_dec'])
  W_enc = W_dec.T
  problem.clear()
  on_cpu = jax.default_backend() == 'cpu'
  product = jax.jit(products.matmul)
  transposed = jax.jit(lambda a, b: products.matmul(a.T, b))
  by_rows = jax.jit(lambda a, b: products.matmul(a, b.T))

  def trial(count: int) -> Callable[[], tuple[float, float]]:
    results = None
    for _ in range(count):
      pre_acts = product(x, W_enc)
      results = [pre_acts]
      if not encoder_only:
        results += [
            product(pre_acts, W_dec),
            by_rows(x, W_dec),
            transposed(pre_acts, x),
            transposed(x, pre_acts),
        ]
      if on_cpu:  # Otherwise several steps might run at once.
        jax.block_until_ready(results)
    jax.block_until_ready(results)
    return lambda: (float('nan'), float('nan'))

  return trial


def gradient_error(name: str, problem: dict[str, np.ndarray]) -> float:
  """Returns the largest error of a backend's gradients, against float64.

  The error of a parameter is max|a - b| / max|b|, where b is the gradient in
  float64 from the same pre-activations. The result is NaN if float64 would take
  too long.
  """
  flops = 10 * problem['x'][0].size * len(problem['W_dec'])
  if flops > _MAX_FLOPS:
    print(
        f'{name}: no gradients in float64, which need {flops:.0e} FLOPs',
        file=sys.stderr,
    )
    return float('nan')
  backend = name.partition('-')[2]
  sae = _group(problem['x'].shape[-1], problem['W_dec'].shape[0]).sae
  params, x = _params(problem), jnp.asarray(problem['x'][0])
  # A b_dec other than zero, so that the pre-encoder bias has an effect.
  params['b_dec'] = x[:8].mean(axis=0)
  batch = active_pairs.Batch(
      pre_acts=jax.jit(sae.pre_acts)(params, x),
      inputs=x,
      targets=x,
      keep=jnp.ones(len(x), bool),
      threshold=sae.threshold(params),
      b_dec=params['b_dec'],
      coefficient=jnp.float32(problem_lib.COEFFICIENT),
      target_l0=jnp.float32(1),
  )
  settings = active_pairs.Settings(problem_lib.BANDWIDTH, True, False)
  exact = exact_lib.gradients(
      batch, problem['W_dec'].T, problem['W_dec'], settings=settings
  )
  if backend == 'oracle':
    grads = _oracle(sae, params, batch)
  else:
    grads = _gradients(backend, batch, params, settings)
  return max(
      float(np.abs(np.asarray(grads[k]) - v).max() / np.abs(v).max())
      for k, v in exact.items()
  )


def _oracle(sae: Any, params: Any, batch: active_pairs.Batch) -> dict[str, Any]:
  _, grads = exact_lib.differentiate(sae, params, batch)
  return grads | {'threshold': grads['log_threshold'] / batch.threshold}


def _gradients(
    backend: str,
    batch: active_pairs.Batch,
    params: Any,
    settings: active_pairs.Settings,
) -> dict[str, Any]:
  call = {
      'dense': dense.gradients,
      'sparse': functools.partial(
          gradients_lib.compute_sparse, cap=backends.Sparse().cap
      ),
      'native': gradients_lib.compute_native,
      'pallas': functools.partial(
          gradients_lib.compute_pallas, cap=backends.Pallas().cap
      ),
  }[backend]
  call = jax.jit(functools.partial(call, settings=settings))
  W_enc, W_dec, result = call(batch, params['W_enc'], params['W_dec'])
  return {
      'W_enc': W_enc,
      'W_dec': W_dec,
      'b_enc': result.b_enc,
      'b_dec': result.b_dec,
      'threshold': result.threshold,
  }
