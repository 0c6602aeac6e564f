"""Draws the training metrics of runs: loss, L0, FVU, dead latents and others.

Writes to --out a picture of each metric that the runs have logged (NAME.png and
NAME.pdf): loss, l0 with its targets, fvu, dead_share, threshold (the mean over
latents) and learning_rate. A picture has a panel per site and a line per
member, named by its sparsity coefficient or target L0. Several runs are drawn
together. curves.csv holds the numbers: a row per run, member and logged
segment. Runs that still train can be drawn; no device is used.

  jumprelu curves runs/layer2 --out=curves
  jumprelu curves runs/a runs/b --over=steps --out=curves
"""

import os
import sys

from absl import flags

from jumprelu import extras
from jumprelu.files import folder_kinds
from jumprelu.run import flags as flags_lib
from jumprelu.run import folders, main

POSITIONAL = 'runs'


def define_flags(fv: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_list('runs', [], 'Run directories.', flag_values=fv)
  flags.DEFINE_string(
      'out', None, 'Folder for the pictures and the CSV.', flag_values=fv
  )
  flags.DEFINE_enum(
      'over', 'tokens', ['tokens', 'steps'], 'The x axis.', flag_values=fv
  )
  flags_lib.define_integer(
      fv,
      'points',
      2000,
      'Largest number of logged segments per run; of more, evenly spaced ones'
      ' are selected, the last one included.',
      lower_bound=2,
  )


def run(fv: flags.FlagValues) -> None:
  """Writes the pictures and the table, and prints their paths."""
  folders.check_inputs(fv.runs, usage='jumprelu curves RUN... --out=DIR')
  out = folders.out_folder(fv.out)

  from jumprelu.plots import curves, labels, sheets
  from jumprelu.training import metrics_file

  rows = []
  for path, name in zip(fv.runs, labels.run_names(fv.runs), strict=True):
    rows += metrics_file.read(_path(path), name=name, limit=fv.points)
  sheets.write_csv(rows, out / 'curves.csv')
  for metric in curves.drawable(rows):
    figure = curves.plot(rows, metric, over=fv.over)
    sheets.save(figure, out / metric)
    print(out / f'{metric}.png')
  print(f'{out / "curves.csv"}: {len(rows)} rows')


def _path(text: str) -> folder_kinds.Folder:
  """Returns a local path, or a path in remote storage with the same methods."""
  with extras.imports():
    from etils import epath

  return epath.Path(os.path.expanduser(text))


if __name__ == '__main__':
  sys.exit(main.launch('curves'))
