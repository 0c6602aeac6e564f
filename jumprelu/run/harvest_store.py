"""The part of `jumprelu harvest` that fills a store (see `run/harvest.py`)."""

import dataclasses
import sys

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import dotted

# Flags of the training config that determine a stream. Model, layer and sites
# are listed separately, because `run/harvest.py` declares them: they also apply
# without --store.
_STREAM = (
    'layers',
    'store',
    'recipe',
    'tokens',
    'data',
    'input_gain',
    'lm_dtype',
    'matmul_precision',
    'stream.',
    'corpus.',
    'mesh.',
)
_SHARED = ('model', 'layer', 'sites')
# Flags that apply only without --store.
_FILE = (
    'token_ids',
    'text',
    'out',
    'logits',
    'dtype',
    'batch',
    'sequence_length',
)


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the flags that apply only with --store."""
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import config

  flags.define(
      fv,
      config.resolve(),
      alternatives=config.other_recipes(),
      only=_STREAM,
      title='flags for --store',
  )
  flags.define(fv, preemption_lib.Config(), prefix='process.')


def present(fv: absl_flags.FlagValues) -> list[str]:
  """Returns the names of flags that are set but apply only with --store."""
  return [
      name
      for name in fv
      if fv[name].present and dotted.is_among(name, (*_STREAM, 'process.'))
  ]


def run(fv: absl_flags.FlagValues) -> int:
  """Fills the store, or resumes filling it; returns the exit code."""
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import config as config_lib
  from jumprelu.training import harvest_store, train

  problems = [
      f'--{name} cannot be combined with --store'
      for name in _FILE
      if fv[name].present
  ]
  if not fv['layer'].present and not fv['layers'].present:
    problems.append('--layer or --layers is needed')
  if problems:
    raise errors.UserError('; '.join(problems))
  shared = {name: fv[name].value for name in _SHARED if fv[name].present}
  config = flags.build(
      fv,
      config_lib.resolve(),
      lambda values: config_lib.resolve({**values, **shared}),
      only=_STREAM,
  )
  processes = flags.build(fv, preemption_lib.Config(), prefix='process.')
  # The watchdog expects training segments, which harvesting does not have.
  processes = dataclasses.replace(processes, watchdog_seconds=0)
  with preemption_lib.start(processes) as preemption:
    outcome = harvest_store.harvest_store(
        config, should_stop=preemption.reached
    )
  if outcome == train.PREEMPTED:
    print(
        f'{config.store}: stopped; run the same command to resume',
        file=sys.stderr,
    )
    return preemption.exit_code
  print(f'{config.store}: complete, {config.blocks} blocks')
  return 0
