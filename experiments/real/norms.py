r"""Prints the norms of activations, from which to choose --stream.max_norm.

For each limit, a multiple of the median norm: the share of rows above it, their
share of the variance of all rows, and the share of the mean in E||x||^2 of the
other rows. One block of positions is read.

  python -m experiments.real.norms --model=gemma-3-270m.gguf \
      --data=brown.jsonl,prose.jsonl
  python -m experiments.real.norms --model=gemma2_nano --data=stdlib --layer=2
"""

import sys

from absl import flags
import numpy as np

from experiments.real import options, suites
from jumprelu.run import main as main_lib

MAIN_FLAGS = ('model', 'data', 'layer')
EXTRA = 'train'

_LIMITS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  options.define_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
  """Prints the table."""
  print(table(rows_of(options.scale(flag_values))))


def rows_of(scale: suites.Scale) -> np.ndarray:
  """Returns the residual stream [rows, model] of the first block."""
  from jumprelu.training import config as config_lib
  from jumprelu.training import job as job_lib

  (store,) = (s for s in suites.stores(scale) if s.name == suites.RESIDUAL)
  every = {'stream.center': False, 'stream.max_norm': 0.0}
  fields = suites.harvest_config(scale, store) | every
  job = job_lib.make_job(config_lib.resolve(fields))
  block = job.stream.make_block(0, job.stream.estimate_scales())
  (rows,) = block.activations.values()
  return np.asarray(rows, np.float32)[np.asarray(block.keep)]


def table(rows: np.ndarray) -> str:
  """Returns the quantiles of norms, and a line for each limit.

  Args:
    rows: Activations [rows, model].
  """
  norms = np.linalg.norm(rows, axis=1)
  median = np.median(norms)
  spread = np.sum((rows - rows.mean(0)) ** 2, 1, dtype=np.float64)
  lines = [
      f'{len(rows):,} rows, median norm {median:,.6g}; quantiles / median:'
  ]
  lines += [
      f'  {100 * share:g} %: {value:.3g}'
      for share, value in zip(
          _QUANTILES, np.quantile(norms, _QUANTILES) / median, strict=True
      )
  ]
  lines.append('limit  rows above  variance above  mean of the others')
  for limit in _LIMITS:
    above = norms > limit * median
    kept = rows[~above]
    square = np.sum(kept**2, dtype=np.float64) / len(kept)
    mean = np.sum(kept.mean(0, dtype=np.float64) ** 2) / square
    lines.append(
        f'{limit:>5g} {100 * above.mean():>9.4f} %'
        f' {100 * spread[above].sum() / spread.sum():>12.2f} %'
        f' {100 * mean:>12.1f} % of E||x||^2'
    )
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.real.norms',
          sys.argv[1:],
      )
  )
