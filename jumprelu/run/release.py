"""Exports a run's SAEs in Gemma Scope's format, with metrics and test vectors.

Reads the newest checkpoint of a run directory, folds the activation scale into
the arrays, and evaluates every SAE on held-out text, unless the run directory
already holds that evaluation. Each SAE has a folder with its params.npz,
config, results and test vectors: SITE/layer_L/width_W/average_l0_N for JumpReLU
SAEs, and the same below variants/VARIANT for others. The release also holds a
table of all results, a plot of the frontier (frontier.png) and a README. It is
verified before it is moved to --out. An existing --out is replaced only if it
is empty or an earlier release of the same run.

  jumprelu release --run=runs/layer2 --out=releases/layer2
"""

import pathlib
import sys

from absl import flags

from jumprelu import errors
from jumprelu.files import remote
from jumprelu.run import flags as flags_lib
from jumprelu.run import main

EXTRA = 'train'


def define_flags(fv: flags.FlagValues):
  """Declares the command's flags."""
  flags.DEFINE_string('run', None, 'Run directory.', flag_values=fv)
  flags.DEFINE_string(
      'out', None, 'Release directory to write.', flag_values=fv
  )
  flags.DEFINE_string(
      'licence',
      'Apache-2.0',
      'SPDX name of the licence of the released arrays.',
      flag_values=fv,
  )
  flags.DEFINE_bool(
      'as_jumprelu',
      False,
      'Convert SAEs to JumpReLU SAEs where the two are equivalent;'
      ' config.json names the original variant.',
      flag_values=fv,
  )
  flags.DEFINE_bool(
      'unfinished',
      False,
      'Release a run even if it is unfinished; card, config.json, results and'
      ' plots then state the step at which it stopped.',
      flag_values=fv,
  )
  flags.DEFINE_bool(
      'allow_skipped',
      False,
      'Release members even if they skipped more than 5 % of their steps'
      ' because of a non-finite loss or gradient.',
      flag_values=fv,
  )
  flags_lib.define_integer(
      fv,
      'test_vectors',
      16,
      'Test vectors (held-out activations) stored with each member.',
      lower_bound=8,
      upper_bound=4096,
  )


def run(fv: flags.FlagValues):
  """Writes the release, and prints its results and its verified size."""
  missing = [f'--{n} is needed' for n in ('run', 'out') if not fv[n].value]
  if missing:
    raise errors.UserError('; '.join(missing))
  out = remote.local('out', fv.out).resolve()
  if not remote.is_remote(fv.run) and out == pathlib.Path(fv.run).resolve():
    raise errors.UserError(f'--out={fv.out}: must differ from --run')

  from jumprelu.evals import evaluate
  from jumprelu.release import layout, publish, releasable, verify, write

  opened = publish.open_run(fv.run)
  step, total = opened.members[0].meta['step'], opened.config.steps
  print(f'{fv.run}: checkpoint at step {step} of {total}', flush=True)
  # Both checks precede the evaluation, because that takes minutes.
  write.check_target(fv.out, run=publish.identity(opened))
  releasable.check(
      opened.members,
      run=fv.run,
      total_steps=opened.config.steps,
      unfinished=fv.unfinished,
      allow_skipped=fv.allow_skipped,
  )
  evaluation = publish.evaluate_run(opened)
  rows = publish.release_run(
      opened,
      evaluation,
      fv.out,
      test_vectors=fv.test_vectors,
      licence=fv.licence,
      as_jumprelu=fv.as_jumprelu,
      unfinished=fv.unfinished,
      allow_skipped=fv.allow_skipped,
  )
  evaluate.print_table(rows)
  print(f'{fv.out}: {verify.verify_release(fv.out)}')
  if (out / layout.FRONTIER).exists():
    print(f'{out / layout.FRONTIER}: fidelity against sparsity')


if __name__ == '__main__':
  sys.exit(main.launch('release'))
