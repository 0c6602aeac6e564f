"""The half of `jumprelu harvest` that fills a store; see `run/harvest.py`."""

import dataclasses
import sys

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import dotted

# What decides a stream, as for train. Model, layer and sites are flags of the
# command's other half as well.
_STREAM = (
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
# Flags that only a file of activations has.
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
  """Declares the flags that go with --store."""
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import config

  flags.define(
      fv,
      config.resolve(),
      alternatives=config.other_recipes(),
      only=_STREAM,
  )
  flags.define(fv, preemption_lib.Config(), prefix='process.')


def given(fv: absl_flags.FlagValues) -> list[str]:
  """The flags among these that were given."""
  return [
      name
      for name in fv
      if fv[name].present and dotted.is_among(name, (*_STREAM, 'process.'))
  ]


def run(fv: absl_flags.FlagValues) -> int:
  """Fills the store; returns the exit code."""
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import config as config_lib
  from jumprelu.training import harvest_store, train

  problems = [
      f'--{name} does not go with --store' for name in _FILE if fv[name].present
  ]
  if not fv['layer'].present:
    problems.append('--layer is needed')
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
  # Blocks take as long as they take: nothing that a watchdog could wait for.
  processes = dataclasses.replace(processes, watchdog_seconds=0)
  with preemption_lib.start(processes) as preemption:
    outcome = harvest_store.harvest_store(
        config, should_stop=preemption.reached
    )
  if outcome == train.PREEMPTED:
    print(f'{config.store}: the same command goes on', file=sys.stderr)
    return preemption_lib.EXIT_PREEMPTED
  print(f'{config.store}: complete, {config.blocks} blocks')
  return 0
