"""Shows the state of runs; exits 1 if a run has failed or is stale.

Prints a table from the STATUS.json files of run directories: state, step,
share, tokens per second, and the time of the last update. A folder of run
directories may be passed for all of its runs. Only reads files; uses no device.

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
      'Minutes without a checkpoint after which an unfinished run is stale.',
      lower_bound=0.0,
      flag_values=fv,
  )


def run(fv: flags.FlagValues) -> int:
  """Prints the table; returns 1 if a run needs attention."""
  if not fv.runs:
    raise errors.UserError('no run directory: use jumprelu status DIR...')
  from jumprelu.run import fleet

  now, stale_after = time.time(), 60 * fv.stale_minutes
  runs = [
      fleet.read(path, now=now, stale_after=stale_after)
      for path in fleet.find(fv.runs)
  ]
  print(fleet.table(runs))
  return int(any(run.is_bad for run in runs))


if __name__ == '__main__':
  sys.exit(main.launch('status'))
