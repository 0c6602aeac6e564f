"""Trains, or goes on training, one layer's suite of SAEs.

Streams text through a language model and trains, from the activations of one
layer, every combination of sites, widths, variants, sparsity coefficients (or
target L0s) and seeds at once. Everything lands in the run directory --out: the
config, metrics.jsonl, STATUS.json and checkpoints. The same command started
again goes on where the directory stands; on SIGTERM it saves and leaves with
exit code 42. Then: jumprelu release --run=DIR --out=DIR2.

  jumprelu train --out=runs/a
  jumprelu train --out=runs/b --layer=2 --sites=resid_post,transcoder
      --widths=1024 --sparsity_coefficients=1e-3,3e-3 --tokens=2_000_000
  jumprelu train --out=runs/c --target_l0=20,50 --data=notes/,more.jsonl
"""

import sys

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.run import main

EXTRA = 'train'


def define_flags(flag_values: absl_flags.FlagValues) -> None:
  """Declares --out and a flag for each field of the config."""
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import config

  absl_flags.DEFINE_string(
      'out',
      None,
      'Run directory: new, empty, or one of the same config.',
      flag_values=flag_values,
  )
  flags.define(
      flag_values, config.resolve(), alternatives=config.other_recipes()
  )
  flags.define(flag_values, preemption_lib.Config(), prefix='process.')


def run(flag_values: absl_flags.FlagValues) -> int:
  """Trains; returns the exit code."""
  from jumprelu import lm
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import config

  if not flag_values.out:
    raise errors.UserError('--out is needed: the run directory')
  processes = flags.build(
      flag_values, preemption_lib.Config(), prefix='process.'
  )
  resolved = flags.build(flag_values, config.resolve(), config.resolve)
  # Before there is a run directory, which another --model would not fit. A store
  # stands in for the model's files.
  if not resolved.store:
    lm.find(resolved.model)
  return train_suite(resolved, flag_values.out, processes=processes)


def train_suite(config, out, *, processes=None) -> int:
  """Trains `config` in `out` as one process among others; the exit code."""
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import train

  with preemption_lib.start(processes or preemption_lib.Config()) as preemption:
    outcome = train.train(config, out, should_stop=preemption.reached)
  if outcome == train.PREEMPTED:
    print(f'{out}: saved; the same command goes on', file=sys.stderr)
    return preemption_lib.EXIT_PREEMPTED
  print(f'{out}: done, {config.steps} steps')
  return 0


if __name__ == '__main__':
  sys.exit(main.launch('train'))
