"""Shows where runs stand, and exits 1 if one has failed or fallen silent.

Prints a table over the STATUS.json files of run directories: state, step,
share, tokens per second, and when the run last said something. A folder that
holds run directories stands for all of them. Reads only, and touches no device.

  jumprelu status runs/scope-2b
  jumprelu status runs/a runs/b --stale_minutes=10
"""

import sys
import time

from absl import flags

from jumprelu import errors
from jumprelu.run import main

POSITIONAL = 'runs'


def define_flags(fv: flags.FlagValues):
  """Declares the command's flags."""
  flags.DEFINE_list('runs', [], 'Run directories.', flag_values=fv)
  flags.DEFINE_float(
      'stale_minutes',
      60.0,
      'A run that goes on is stale after so long without a checkpoint.',
      lower_bound=0.0,
      flag_values=fv,
  )


def run(fv: flags.FlagValues) -> int:
  """Prints the table; 1 if somebody should look."""
  if not fv.runs:
    raise errors.UserError('give run directories: jumprelu status DIR...')
  from jumprelu.run import fleet

  now, stale_after = time.time(), 60 * fv.stale_minutes
  found = [
      fleet.read(path, now=now, stale_after=stale_after)
      for path in fleet.find(fv.runs)
  ]
  print(fleet.table(found))
  return int(any(run.is_bad for run in found))


if __name__ == '__main__':
  sys.exit(main.launch('status'))
