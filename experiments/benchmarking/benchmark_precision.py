"""The effect of the precision of matrix products on a JumpReLU SAE.

The first table has relative errors of the gradient of thresholds, for several
ranges of the threshold. This gradient depends only on pre-activations within
half a bandwidth of the threshold. Three kinds of matrix product are compared
with float64: in float32, with inputs rounded to bfloat16, and with results
rounded to bfloat16.

The second table compares the SAEs of two suites on the embedded model, which
are trained by the same backend and differ only in `matmul_precision`.

  python -m experiments.benchmarking.benchmark_precision --work=experiments_work
"""

from collections.abc import Iterator, Sequence
import pathlib
import statistics
import sys
from typing import Any

from absl import flags
import numpy as np

from experiments import findings
from experiments.benchmarking import exact
from experiments.figures import drawing
from experiments.suites import results, scales, suites
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

# Name of a precision in the tables -> name in configs.
_PRECISIONS = {'float32': 'highest', 'bfloat16': 'bfloat16'}
_METRICS = ('l0', 'fvu', 'delta_loss', 'dead_share')
# The width of Gemma 2 2B and the bandwidth of the papers. Latents fire on one
# row in 256.
_D_MODEL, _BANDWIDTH, _QUANTILE = 2304, 1e-3, 1 - 1 / 256
_RANGES = ((0.03, 0.0625), (0.0625, 0.125), (0.125, 0.25), (0.25, 0.5))
_LATENTS = 64  # In each range.
_CHUNK = 8192  # Rows of a batch.


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_string(
      'work',
      'experiments_work',
      'Folder for the two suites; finished runs are reused.',
      flag_values=flag_values,
  )
  flags_lib.define_integer(
      flag_values,
      'rows',
      65_536,
      'Rows for the gradients; 0 omits the first table.',
      lower_bound=0,
  )
  flags.DEFINE_enum(
      'scale',
      'nano',
      ['nano', 'quick'],
      'Scale of the suites.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints both tables as Markdown."""
  if flag_values.rows:
    print(_gradient_table(gradient_errors(flag_values.rows)), flush=True)
  scale = scales.SCALES[flag_values.scale]
  folder = pathlib.Path(flag_values.work) / scale.name
  rows = drawing.of_members(
      {
          precision: results.obtain(_suite(scale, precision), folder)
          for precision in _PRECISIONS
      },
      'sparsity_coefficient',
      'seed',
      *_METRICS,
      origin='precision',
  )
  print(frontier_table(rows))
  return 0


def gradient_errors(rows: int) -> dict[str, list[float]]:
  """Returns relative errors of the threshold's gradient, one per range.

  They are keyed by the kind of matrix product. An error is |g - g64| / |g64|,
  where g is the vector of gradients of a range's latents.

  Args:
    rows: The number of rows, rounded down to a positive multiple of 8,192.
  """
  gradients = {}
  params = _params()
  for batches in _batches(max(rows // _CHUNK, 1), params):
    for kind, batch in batches.items():
      gradient = exact.gradients(
          batch, params['W_enc'], params['W_dec'], settings=_settings()
      )['threshold']
      gradients[kind] = gradients.get(kind, 0) + gradient
  true = gradients.pop('float64').reshape(len(_RANGES), -1)
  return {
      kind: [
          float(np.linalg.norm(a - b) / np.linalg.norm(b))
          for a, b in zip(gradient.reshape(true.shape), true, strict=True)
      ]
      for kind, gradient in gradients.items()
  }


def _settings() -> Any:
  from jumprelu.ops import active_pairs

  return active_pairs.Settings(
      _BANDWIDTH, pre_encoder_bias=False, target_l0=False
  )


def _params() -> dict[str, np.ndarray]:
  """Returns latents of equal frequency with thresholds in all ranges."""
  rng = np.random.default_rng(0)
  threshold = np.concatenate(
      [np.geomspace(*ends, _LATENTS, endpoint=False) for ends in _RANGES]
  ).astype(np.float32)
  W_dec = rng.standard_normal((len(threshold), _D_MODEL))
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  # Rows and columns have norm 1, so the standard deviation of products is
  # 1 / sqrt(d).
  high = statistics.NormalDist().inv_cdf(_QUANTILE) / np.sqrt(_D_MODEL)
  return {
      'W_enc': W_dec.T.astype(np.float32),
      'b_enc': threshold - np.float32(high),
      'W_dec': W_dec.astype(np.float32),
      'threshold': threshold,
  }


def _batches(
    count: int, params: dict[str, np.ndarray]
) -> Iterator[dict[str, Any]]:
  """Yields random batches, with the pre-activations of each kind of product."""
  import jax
  import jax.numpy as jnp

  from jumprelu.ops import active_pairs, products

  rng = np.random.default_rng(1)
  W_enc, b_enc = params['W_enc'], params['b_enc']
  for _ in range(count):
    x = rng.standard_normal((_CHUNK, _D_MODEL), np.float32)
    x /= np.float32(np.sqrt(_D_MODEL))
    exact_product = x.astype(np.float64) @ W_enc.astype(np.float64)
    pre_acts_of = {'float64': exact_product + b_enc}
    for kind, precision in _PRECISIONS.items():
      with jax.default_matmul_precision(precision):
        product = products.matmul(jnp.asarray(x), jnp.asarray(W_enc))
        pre_acts_of[f'{kind} inputs'] = np.asarray(product) + b_enc
    stored = jnp.asarray(pre_acts_of['float32 inputs']).astype(jnp.bfloat16)
    pre_acts_of['bfloat16 results'] = np.asarray(stored.astype(jnp.float32))
    yield {
        kind: active_pairs.Batch(
            pre_acts,
            x,
            x,
            np.ones(_CHUNK, bool),
            params['threshold'],
            np.zeros(_D_MODEL),
            np.float32(1e-3),
            np.float32(1),
        )
        for kind, pre_acts in pre_acts_of.items()
    }


def _suite(scale: scales.Scale, precision: str) -> suites.Suite:
  """Returns a suite of JumpReLU SAEs, several seeds each, in a precision."""
  return suites.make(
      scale,
      f'precision_{precision}',
      matmul_precision=_PRECISIONS[precision],
      backend='dense',
      seeds=scale.seeds,
      **suites.variants(scale, 'jumprelu'),
  )


def _gradient_table(results: dict[str, list[float]]) -> str:
  names = [f'{low:g} to {high:g}' for low, high in _RANGES]
  rows = [
      [kind, *(f'{100 * error:.2g} %' for error in errors)]
      for kind, errors in results.items()
  ]
  return findings.markdown(['error at thresholds of', *names], rows)


def frontier_table(rows: Sequence[drawing.Row]) -> str:
  """Returns means over seeds, and differences with standard errors."""
  table = []
  for value in sorted({row['sparsity_coefficient'] for row in rows}):
    members = drawing.where(rows, sparsity_coefficient=value)
    by_seed = {
        precision: sorted(
            drawing.where(members, precision=precision), key=lambda r: r['seed']
        )
        for precision in _PRECISIONS
    }
    for metric in _METRICS:
      if any(row[metric] is None for row in members):
        continue  # Too few tokens were evaluated for the share of dead latents.
      float32, bfloat16 = (
          np.array([row[metric] for row in by_seed[precision]])
          for precision in _PRECISIONS
      )
      change = bfloat16 - float32
      error = (
          change.std(ddof=1) / np.sqrt(len(change)) if change.size > 1 else 0
      )
      table.append(
          [
              f'{value:g}',
              metric,
              f'{float32.mean():.4g}',
              f'{bfloat16.mean():.4g}',
              f'{change.mean():+.2g} ± {error:.2g}',
          ]
      )
  return findings.markdown(
      ['coefficient', 'metric', *_PRECISIONS, 'difference'], table
  )


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.benchmark_precision',
          sys.argv[1:],
      )
  )
