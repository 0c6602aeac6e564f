"""The table of docs/training_advice.md: coefficient, L0 and dead latents.

Reads the metrics of finished training runs and writes a CSV file with a row per
SAE; rows of the same run in an existing file are replaced. L0 and FVU are means
over the last sixteenth of a run, on training text. `settled_tokens` are the
tokens after which L0 stays within 5 % of its last value.

  python -m experiments.advice runs/a runs/b \
      --out=experiments/results/nano/training_advice.csv
"""

import pathlib
import sys
from typing import Any

from absl import flags
import numpy as np

from experiments.figures import drawing
from jumprelu import errors
from jumprelu.files import dotted
from jumprelu.plots import sheets
from jumprelu.run import main as main_lib
from jumprelu.training import metrics_file, run_dir

POSITIONAL = 'runs'

# The share of a run over which metrics are averaged.
_LAST = 1 / 16
# The relative distance of a settled L0 from its last value.
_SETTLED = 0.05

_MEMBER = (
    'site', 'layer', 'width', 'variant', 'sparsity_coefficient', 'target_l0',
    'seed',
)  # fmt: skip
# Columns that come from the config of the run.
_CONFIG = {
    'recipe': 'recipe',
    'training_tokens': 'tokens',
    'training_text': 'data',
    'batch': 'stream.batch',
    'learning_rate': 'optim.learning_rate',
    'b2': 'optim.b2',
}


def rows_of(run: pathlib.Path) -> list[dict[str, Any]]:
  """Returns a row for each SAE of a run.

  Raises:
    MissingInputError: the folder holds no run, or the run has not ended.
  """
  config = run_dir.RunDir(run).read_config()
  if not run_dir.RunDir(run).is_done(config.steps):
    raise errors.MissingInputError(
        f'{run}: the run has not ended; resume its jumprelu train command'
    )
  leaves = dotted.leaves(config)
  members: dict[str, list[dict[str, Any]]] = {}
  for row in metrics_file.read(run):
    members.setdefault(row['member'], []).append(row)
  return [
      {'run': run.name, 'model': config.model}
      | {name: lines[-1][name] for name in _MEMBER}
      | {name: leaves[path].value for name, path in _CONFIG.items()}
      | summary(lines)
      for lines in members.values()
  ]


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns the last L0, FVU and share of dead latents of an SAE.

  Args:
    lines: The SAE's rows of `metrics_file.read`, in the order of the steps.
  """
  count = max(1, round(len(lines) * _LAST))
  l0 = np.array([line['l0'] for line in lines])
  # Smoothed over the same share of the run.
  means = np.convolve(l0, np.ones(count) / count, 'valid')
  off = np.flatnonzero(np.abs(means / means[-1] - 1) > _SETTLED)
  settled = lines[off[-1] + count if len(off) else 0]
  return {
      'l0': means[-1],
      'fvu': float(np.mean([line['fvu'] for line in lines[-count:]])),
      'dead_share': lines[-1]['dead_share'],
      'settled_tokens': settled['positions'],
  }


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_list(
      'runs', [], 'Run directories, separated by commas.',
      flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_string('out', None, 'The CSV file.', flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> int:
  """Writes the CSV file and returns the exit code."""
  if not flag_values.out or not flag_values.runs:
    raise errors.UserError('run directories and --out=FILE.csv are needed')
  out = pathlib.Path(flag_values.out)
  new = [
      row for name in flag_values.runs for row in rows_of(pathlib.Path(name))
  ]
  replaced = {row['run'] for row in new}
  old = drawing.read_csv(out) if out.exists() else []
  rows = [row for row in old if row['run'] not in replaced] + new
  sheets.write_csv(rows, out, digits=6)
  print(f'{out}: {len(rows)} rows')
  return 0


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.advice',
          sys.argv[1:],
      )
  )
