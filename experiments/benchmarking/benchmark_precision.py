"""What the precision of matrix products does to a JumpReLU SAE.

First to the threshold's gradient, which sees only pre-activations within half
a bandwidth of the threshold: with products of float32, of bfloat16 inputs, and
with results that are stored as bfloat16, against float64, by size of the
threshold. Then to what is trained: two suites on the embedded model by the same
backend, which differ in `matmul_precision` alone.

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
from jumprelu.run import main as main_lib

# What tables call a precision -> what configs do.
_PRECISIONS = {'float32': 'highest', 'bfloat16': 'bfloat16'}
_METRICS = ('l0', 'fvu', 'delta_loss', 'dead_share')
# Gemma 2 2B's width and the papers' bandwidth; latents fire on a 256th of rows.
_D_MODEL, _BANDWIDTH, _QUANTILE = 2304, 1e-3, 1 - 1 / 256
_RANGES = ((0.03, 0.0625), (0.0625, 0.125), (0.125, 0.25), (0.25, 0.5))
_LATENTS = 64  # Of each range.
_CHUNK = 8192  # Rows at once.


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_string(
      'work',
      'experiments_work',
      'Folder for the two suites; what is finished there is not done again.',
      flag_values=flag_values,
  )
  flags.DEFINE_integer(
      'rows',
      65_536,
      'Rows from which the gradients are taken; 0: only train.',
      0,
      flag_values=flag_values,
  )
  flags.DEFINE_enum(
      'scale',
      'nano',
      ['nano', 'quick'],
      'Of the suites.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints both tables, as Markdown."""
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
  """Returns |g - g64| / |g64| over a range's latents, by kind of product.

  Args:
    rows: Of the batch; a multiple of 8,192 that are drawn anew.
  """
  found = {}
  params = _params()
  for batches in _batches(max(rows // _CHUNK, 1), params):
    for kind, batch in batches.items():
      gradient = exact.gradients(
          batch, params['W_enc'], params['W_dec'], settings=_settings()
      )['threshold']
      found[kind] = found.get(kind, 0) + gradient
  true = found.pop('float64').reshape(len(_RANGES), -1)
  return {
      kind: [
          float(np.linalg.norm(a - b) / np.linalg.norm(b))
          for a, b in zip(gradient.reshape(true.shape), true, strict=True)
      ]
      for kind, gradient in found.items()
  }


def _settings() -> Any:
  from jumprelu.ops import active_pairs

  return active_pairs.Settings(
      _BANDWIDTH, pre_encoder_bias=False, target_l0=False
  )


def _params() -> dict[str, np.ndarray]:
  """Latents whose thresholds fill the ranges, each as rare as the next."""
  rng = np.random.default_rng(0)
  threshold = np.concatenate(
      [np.geomspace(*ends, _LATENTS, endpoint=False) for ends in _RANGES]
  ).astype(np.float32)
  W_dec = rng.standard_normal((len(threshold), _D_MODEL))
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  # Rows and columns are of norm 1: products deviate by 1 / sqrt(d).
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
  """Draws batches, with pre-activations by each kind of product."""
  import jax
  import jax.numpy as jnp

  from jumprelu.ops import active_pairs, products

  rng = np.random.default_rng(1)
  W_enc, b_enc = params['W_enc'], params['b_enc']
  for _ in range(count):
    x = rng.standard_normal((_CHUNK, _D_MODEL), np.float32)
    x /= np.float32(np.sqrt(_D_MODEL))
    found = {'float64': x.astype(np.float64) @ W_enc.astype(np.float64) + b_enc}
    for kind, precision in _PRECISIONS.items():
      with jax.default_matmul_precision(precision):
        product = products.matmul(jnp.asarray(x), jnp.asarray(W_enc))
        found[f'{kind} inputs'] = np.asarray(product) + b_enc
    stored = jnp.asarray(found['float32 inputs']).astype(jnp.bfloat16)
    found['bfloat16 results'] = np.asarray(stored.astype(jnp.float32))
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
        for kind, pre_acts in found.items()
    }


def _suite(scale: scales.Scale, precision: str) -> suites.Suite:
  """JumpReLU SAEs from several seeds, all of whose products are of it."""
  return suites.make(
      scale,
      f'precision_{precision}',
      matmul_precision=_PRECISIONS[precision],
      backend='dense',
      seeds=scale.seeds,
      **suites.variants(scale, 'jumprelu'),
  )


def _gradient_table(found: dict[str, list[float]]) -> str:
  names = [f'{low:g} to {high:g}' for low, high in _RANGES]
  rows = [
      [kind, *(f'{100 * error:.2g} %' for error in errors)]
      for kind, errors in found.items()
  ]
  return findings.markdown(['error at thresholds of', *names], rows)


def frontier_table(rows: Sequence[drawing.Row]) -> str:
  """Returns means over seeds, and the differences with their errors."""
  table = []
  for value in sorted({row['sparsity_coefficient'] for row in rows}):
    here = drawing.where(rows, sparsity_coefficient=value)
    by_seed = {
        precision: sorted(
            drawing.where(here, precision=precision), key=lambda r: r['seed']
        )
        for precision in _PRECISIONS
    }
    for metric in _METRICS:
      if any(row[metric] is None for row in here):
        continue  # A share of dead latents, read on too few tokens.
      one, other = (
          np.array([row[metric] for row in by_seed[precision]])
          for precision in _PRECISIONS
      )
      change = other - one
      error = (
          change.std(ddof=1) / np.sqrt(len(change)) if change.size > 1 else 0
      )
      table.append(
          [
              f'{value:g}',
              metric,
              f'{one.mean():.4g}',
              f'{other.mean():.4g}',
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
