r"""Trains a suite of SAEs, or resumes its training.

Streams text through a language model and trains a suite of SAEs from the
activations of a layer: an SAE for each combination of sites, widths, variants,
sparsities and seeds. The run directory --out has config, metrics and
checkpoints, from which the same command resumes. SIGTERM and Ctrl-C save one;
the exit codes are 42 and 130. Next: jumprelu release --run=DIR --out=DIR2.

  jumprelu train --out=runs/b --layers=1,2 --sites=resid_post,transcoder
  jumprelu train --out=runs/c --target_l0=20,50 --data=notes/,more.jsonl
  jumprelu train --out=runs/c --extend --tokens=4_000_000
  jumprelu train --out=runs/c --add --target_l0=100
"""

import functools
import shlex
import sys

from absl import flags as absl_flags

from jumprelu import errors, extras
from jumprelu.run import main

EXTRA = 'train'
MAIN_FLAGS = (
    'out',
    'model',
    'layer',
    'layers',
    'sites',
    'widths',
    'sparsity_coefficients',
    'target_l0',
    'data',
    'tokens',
    'recipe',
    'optim.learning_rate',
)


def define_flags(flag_values: absl_flags.FlagValues) -> None:
  """Declares --out and a flag for each field of the config."""
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import config

  absl_flags.DEFINE_string(
      'out',
      None,
      'Run directory: new, empty, or that of a run with the same config.',
      flag_values=flag_values,
  )
  absl_flags.DEFINE_boolean(
      'extend',
      False,
      'Train the run in --out to a larger --tokens. All other fields are those'
      ' of the run.',
      flag_values=flag_values,
  )
  absl_flags.DEFINE_boolean(
      'add',
      False,
      'Train further SAEs on the activations of the run in --out, such as'
      ' --add --seeds=1,2. Other fields are those of the run.',
      flag_values=flag_values,
  )
  absl_flags.DEFINE_boolean(
      'tensorboard',
      False,
      'Also write the metrics to OUT/tensorboard, by the name of the member, for'
      ' tensorboard --logdir=OUT.',
      flag_values=flag_values,
  )
  flags.define_integer(
      flag_values,
      'profile_steps',
      0,
      "Write a trace by JAX's profiler of this many steps, in whole segments, to"
      ' OUT/profile; 0: none.',
      lower_bound=0,
  )
  flags.define(
      flag_values, config.resolve(), alternatives=config.other_recipes()
  )
  flags.define(flag_values, preemption_lib.Config(), prefix='process.')


def run(flag_values: absl_flags.FlagValues) -> int:
  """Trains the suite; returns the exit code."""
  from jumprelu import lm
  from jumprelu.files import folder_kinds
  from jumprelu.run import flags
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import addition, config, extension, run_dir, train

  if not flag_values.out:
    raise errors.UserError('--out is needed: the run directory')
  if flag_values.tensorboard:
    extras.check('tensorboard')
  processes = flags.build(
      flag_values, preemption_lib.Config(), prefix='process.'
  )
  if flag_values.extend and flag_values.add:
    raise errors.UserError('--extend and --add exclude each other; remove one')
  resolve, default = config.resolve, config.resolve()
  if flag_values.extend or flag_values.add:
    default = run_dir.read_config(flag_values.out)
    change = extension.extended if flag_values.extend else addition.added
    resolve = functools.partial(change, default)
  resolved = flags.build(flag_values, default, resolve)
  # The model is looked up before the run directory is created, because a run
  # directory with a wrong --model in its config would refuse the right one.
  # With a store, no model is needed.
  if not resolved.store:
    lm.find(resolved.model)
  watch = train.Watch(
      tensorboard=flag_values.tensorboard,
      profile_steps=flag_values.profile_steps,
  )
  start = functools.partial(train_suite, processes=processes, watch=watch)
  out = flag_values.out
  if flag_values.add:
    code = start(resolved, addition.directory_of(out, resolved), add_to=out)
  else:
    code = start(resolved, out, extend=flag_values.extend)
  added = folder_kinds.added_runs(out) if flag_values.extend else []
  while added and not code:
    folder = added.pop(0)
    before = run_dir.read_config(folder)
    grown = extension.extended(before, {'tokens': resolved.tokens})
    code = start(grown, str(folder), extend=True)
  if not code:
    print(next_command(out))
  return code


def train_suite(
    config, out, *, processes=None, watch=None, extend=False, add_to=''
) -> int:
  """Trains the suite of a config, or resumes it; returns the exit code.

  Args:
    config: The training config.
    out: The run directory.
    processes: The config of the processes; the default if None.
    watch: The `training.train.Watch`; the default if None.
    extend: Whether `out` may hold a shorter run, which is extended.
    add_to: The run directory to which the members are added, or ''.
  """
  from jumprelu.planning import start_memory
  from jumprelu.release import starts
  from jumprelu.run import preemption as preemption_lib
  from jumprelu.training import run_dir, train

  with preemption_lib.start(processes or preemption_lib.Config()) as preemption:
    if warning := start_memory.check(config):
      print(warning, file=sys.stderr)
    sources = {}
    # Read before the run directory is made, so that a wrong path leaves nothing.
    if config.init_from and not run_dir.RunDir(out).has_checkpoint():
      sources = starts.find(config)
    outcome = train.train(
        config,
        out,
        should_stop=preemption.reached,
        watch=watch or train.PRINTED,
        sources=sources,
        extend=extend,
        add_to=add_to,
        stop_code=lambda: preemption.exit_code,
    )
  if outcome == train.PREEMPTED:
    print(
        f'{out}: checkpoint saved; run the same command to resume',
        file=sys.stderr,
    )
    return preemption.exit_code
  print(f'{out}: done, {config.steps} steps')
  return 0


def next_command(out: str) -> str:
  """Returns the line with the command that follows a finished run."""
  run = out.rstrip('/')
  return (
      'next: jumprelu release'
      f' --run={shlex.quote(run)} --out={shlex.quote(run + "_release")}'
  )


if __name__ == '__main__':
  sys.exit(main.launch('train'))
