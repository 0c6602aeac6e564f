"""Draws one frontier of several releases or evaluations, and prints a table.

An argument is a release, or a .jsonl file of `jumprelu evaluate`. The plot has
a column per site, with FVU and delta loss against L0, and a curve per run,
layer, width and variant. Runs are named by the parts in which their paths
differ. Writes frontier.png, frontier.pdf and frontier.csv (all columns of the
results) to --out; uses no device.

  jumprelu compare releases/a releases/b --out=comparison
  jumprelu compare before.jsonl after.jsonl --out=comparison

Results are comparable only if they were measured on the same text. If they were
not, the plot and a line below the table say so.
"""

import pathlib
import sys

from absl import flags

from jumprelu import errors
from jumprelu.files import remote, wording
from jumprelu.run import folders, main

POSITIONAL = 'results'


def define_flags(fv: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_list(
      'results',
      [],
      'Releases, or .jsonl files of `jumprelu evaluate`.',
      flag_values=fv,
  )
  flags.DEFINE_string(
      'out', None, 'Folder for the plot and the CSV.', flag_values=fv
  )


def run(fv: flags.FlagValues) -> None:
  """Writes the plot and the CSV, and prints the table and the paths."""
  usage = 'jumprelu compare RELEASE_OR_RESULTS... --out=DIR'
  folders.check_inputs(fv.results, usage=usage)
  out = folders.out_folder(fv.out)

  from jumprelu.evals import results
  from jumprelu.plots import labels, sheets
  from jumprelu.release import compare, frontier

  names = [''] * len(fv.results)
  if len(names) > 1:
    names = labels.run_names(fv.results)
  rows = []
  for text, name in zip(fv.results, names, strict=True):
    path = remote.local('results', text)
    rows += compare.read(pathlib.Path(path).expanduser(), name=name)
  if not frontier.is_drawable(rows):
    raise errors.DataError(
        f'{fv.results[0]}: nothing to draw, because no row has a positive L0'
    )
  sheets.write_csv(rows, out / 'frontier.csv')
  sheets.save(frontier.plot(rows), out / 'frontier')
  print(results.table(rows))
  if not compare.has_one_text(rows):
    print(
        'The results were measured on different texts, so that their numbers'
        ' differ even between equal SAEs.'
    )
  saes = wording.count(len(rows), 'SAE')
  print(f'{out / "frontier.png"}: {saes}; also in .pdf and .csv')


if __name__ == '__main__':
  sys.exit(main.launch('compare'))
