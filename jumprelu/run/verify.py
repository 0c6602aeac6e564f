"""Check a release: every file, every number, or the first fault by name.

Reloads everything in a release directory without trusting it, and checks names,
shapes, types, finiteness, unit-norm decoder rows, thresholds, digests, and that
the stored test vectors are what the arrays give. Exits 0 and prints a summary,
or names the first fault in one line and exits 65 (66: no such directory).

  jumprelu verify jumprelu_demo/release
"""

import sys

from absl import flags

from jumprelu import errors
from jumprelu.run import main

POSITIONAL = 'release'


def define_flags(fv: flags.FlagValues):
  """Declare the command's flags."""
  flags.DEFINE_string('release', None, 'The release directory.', flag_values=fv)


def run(fv: flags.FlagValues):
  """Verify, and say what was found."""
  if not fv.release:
    raise errors.UserError('give a release directory: jumprelu verify DIR')
  from jumprelu.release import verify

  print(f'{fv.release}: {verify.verify_release(fv.release)}')


if __name__ == '__main__':
  sys.exit(main.launch('verify'))
