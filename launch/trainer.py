"""Checks of a trainer's command with the trainer's own parser."""

from collections.abc import Sequence
import os
import sys

from absl import flags as absl_flags

from jumprelu.run import main

# Used in place of a model whose files exist only where the run will be. It is
# the known model with the most layers, so that no valid --layer is refused.
_DEEPEST = 'gemma2_27b'


def parse(command: Sequence[str]):
  """Parses a trainer's argv (`spec.LaunchSpec.command`) as the trainer will.

  If the folder of --model does not exist on this computer, the run checks it.

  Returns:
    The flags and the config.

  Raises:
    UserError: The trainer would refuse the flags.
    absl.flags.Error: The flags cannot be parsed.
  """
  from jumprelu.run import flags, train
  from jumprelu.training import config

  flag_values = absl_flags.FlagValues()
  absl_flags.DEFINE_bool('debug', False, '', flag_values=flag_values)
  train.define_flags(flag_values)
  arguments = command[command.index('train') + 1 :]
  main.parse(flag_values, list(map(_replace_remote_model, arguments)))
  resolved = flags.build(flag_values, config.resolve(), config.resolve)
  return flag_values, resolved


def _replace_remote_model(argument: str) -> str:
  name, _, value = argument.partition('=')
  is_remote = '/' in value and not os.path.exists(value)
  if name.lstrip('-') != 'model' or not is_remote:
    return argument
  print(
      f'{argument}: is not on this computer; the run will check its shapes and'
      ' its number of layers',
      file=sys.stderr,
  )
  return f'--model={_DEEPEST}'
