"""Checks every file and array of a release, or names the first fault.

Reloads the files of a release directory and checks names, shapes, types,
finiteness, unit-norm decoder rows, thresholds and digests, and that the arrays
reproduce the stored test vectors. Prints a summary and exits 0 if all checks
pass. Otherwise names the first fault in one line and exits 65, or 66 if the
directory does not exist.

  jumprelu verify jumprelu_demo/release
"""

import sys

from absl import flags

from jumprelu import errors
from jumprelu.run import main

POSITIONAL = 'release'


def define_flags(fv: flags.FlagValues):
  """Declares the command's flags."""
  flags.DEFINE_string('release', None, 'Release directory.', flag_values=fv)


def run(fv: flags.FlagValues):
  """Verifies the release and prints a summary."""
  if not fv.release:
    raise errors.UserError('no release directory: use jumprelu verify DIR')
  from jumprelu.release import verify

  print(f'{fv.release}: {verify.verify_release(fv.release)}')


if __name__ == '__main__':
  sys.exit(main.launch('verify'))
