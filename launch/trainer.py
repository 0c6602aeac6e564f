"""The trainer's own parser, asked before anything is launched."""

from collections.abc import Sequence
import os
import sys

from absl import flags as absl_flags

from jumprelu.run import main

# The deepest there is: stands in for a model whose files are only there where
# the run will be.
_DEEPEST = 'gemma2_27b'


def parse(command: Sequence[str]):
  """Reads a trainer's argv (`spec.LaunchSpec.command`) as the trainer will.

  A --model that is a folder and is not on this computer is left to the pod.

  Returns:
    The flags and the config.

  Raises:
    UserError: or absl's error, as the trainer would.
  """
  from jumprelu.run import flags, train
  from jumprelu.training import config

  flag_values = absl_flags.FlagValues()
  absl_flags.DEFINE_bool('debug', False, '', flag_values=flag_values)
  train.define_flags(flag_values)
  arguments = command[command.index('train') + 1 :]
  main.parse(flag_values, list(map(_here, arguments)))
  resolved = flags.build(flag_values, config.resolve(), config.resolve)
  return flag_values, resolved


def _here(argument: str) -> str:
  name, _, value = argument.partition('=')
  elsewhere = '/' in value and not os.path.exists(value)
  if name.lstrip('-') != 'model' or not elsewhere:
    return argument
  print(
      f'{argument}: is not on this computer; its shapes and the number of its'
      ' layers are checked where the run is',
      file=sys.stderr,
  )
  return f'--model={_DEEPEST}'
