"""The console script: finds the command, parses its flags, keeps exit codes.

Launchers read exit codes: 2 means 'do not try again', 1 means 'crashed, try
again'. absl leaves with 1 on a bad flag, so nothing here goes through `app.run`:
every error that a user can mend becomes one line on stderr and its own code.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
import importlib
import importlib.util
import os
import pathlib
import sys
import traceback
from typing import Any

from absl import flags, logging

import jumprelu
from jumprelu import errors, extras
from jumprelu.files import cache_folder, dotted

COMMANDS = (
    'demo',
    'train',
    'evaluate',
    'release',
    'verify',
    'harvest',
    'plan',
    'parity',
    'status',
)

_USAGE = """\
jumprelu: train, evaluate and release suites of JumpReLU sparse autoencoders
on the activations of Gemma 2.

usage: jumprelu COMMAND [--flag=value ...]

commands:
{commands}

  jumprelu COMMAND --help    what a command does, its flags and their defaults
  jumprelu --version

Start with `jumprelu demo`: it needs no download, no account and no
accelerator, and takes a few minutes.

Token caches and compiled programs are kept in $JUMPRELU_CACHE, by default
~/.cache/jumprelu; JAX_ENABLE_COMPILATION_CACHE=false keeps no programs.
"""

# What a user can mend; the last three are what wrong paths and missing rights
# look like from here.
_MENDABLE = (
    errors.UserError,
    errors.NumericalError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs `jumprelu COMMAND ...` and returns the exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv:
    return _fail('jumprelu', 'give a command: ' + ', '.join(COMMANDS), 2)
  first = argv[0]
  if first in ('--help', '-h', '-help', 'help'):
    print(_USAGE.format(commands='\n'.join(map(_summary, COMMANDS))), end='')
    return 0
  if first in ('--version', '-version'):
    print(f'jumprelu {jumprelu.__version__}')
    return 0
  if first not in COMMANDS:
    kind = 'flag' if first.startswith('-') else 'command'
    return _fail(
        'jumprelu',
        f'unknown {kind} {first!r}{dotted.nearest(first, COMMANDS)}; the commands '
        f'are {", ".join(COMMANDS)}',
        2,
    )
  return launch(first, argv[1:])


def launch(name: str, argv: Sequence[str] | None = None) -> int:
  """Runs one command on its arguments and returns the exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  # Before the command's imports, which read the environment.
  _prepare_process('--debug' in argv)
  if 'jax' not in sys.modules:  # Whoever has it has set it.
    cache_folder.keep_programs()
  command = importlib.import_module(f'jumprelu.run.{name}')
  return run_command(command, f'jumprelu {name}', argv)


def run_command(command: Any, prog: str, argv: Sequence[str]) -> int:
  """Runs what `jumprelu.run` calls a command, whatever its name is."""
  debug = '--debug' in argv
  _prepare_process(debug)
  try:
    flag_values = _own_flags()
    command.define_flags(flag_values)
    # Before parsing: help is wanted most when a required flag is missing.
    if not {'--help', '-h', '-help'}.isdisjoint(argv):
      print(help_text(prog, command.__doc__ or '', flag_values), end='')
      return 0
    if extra := getattr(command, 'EXTRA', None):
      extras.check(extra)
    parse(flag_values, argv, getattr(command, 'POSITIONAL', None))
    return command.run(flag_values) or 0
  except (*_MENDABLE, flags.Error) as error:
    if debug:
      traceback.print_exc()
    return _fail(prog, str(error), getattr(error, 'exit_code', 2))
  except KeyboardInterrupt:
    return _fail(prog, 'interrupted', 130)


def parse(
    flag_values: flags.FlagValues,
    argv: Sequence[str],
    positional: str | None = None,
) -> None:
  """Parses `argv`; one error names every flag that does not exist."""
  rest = flag_values(['jumprelu', *argv], known_only=True)[1:]
  unknown = [arg for arg in rest if arg.startswith('-') and arg != '-']
  if unknown:
    raise errors.UserError(
        '; '.join(_unknown_flag(arg, list(flag_values)) for arg in unknown)
    )
  many = positional and isinstance(
      flag_values[positional].parser, flags.ListParser
  )
  if positional and (len(rest) == 1 or (many and rest)):
    flag_values[positional].parse(rest if many else rest[0])
    flag_values[positional].using_default_value = False
    rest = []
  if rest:
    raise errors.UserError(
        f'unexpected argument {rest[0]!r}: flags are written --name=value'
    )


def help_text(prog: str, doc: str, flag_values: flags.FlagValues) -> str:
  """The command's docstring, then its flags: its own, then each part's."""
  parts = [f'{prog}: {doc.strip()}', f'usage: {prog} [--flag=value ...]']
  for group, members in flag_values.flags_by_module_dict().items():
    # absl files a flag under the module that defined it; `flags.define` names
    # the part of the config instead, and what that part is.
    if group == __name__:
      continue
    title = 'flags' if group in sys.modules else group
    parts.append('\n'.join([f'{title}:', *map(_flag_help, members)]))
  common = flag_values.flags_by_module_dict()[__name__]
  parts.append('\n'.join(['always:', *map(_flag_help, common)]))
  return '\n\n'.join(parts) + '\n'


def _own_flags() -> flags.FlagValues:
  """Flags of one command only, without absl's hundred others."""
  flag_values = flags.FlagValues()
  for name, text in (
      ('help', 'Show this text and leave.'),
      ('debug', "Show the libraries' log, and tracebacks of expected errors."),
  ):
    flags.DEFINE_flag(
        flags.BooleanFlag(name, False, text),
        flag_values=flag_values,
        module_name=__name__,
    )
  return flag_values


def _prepare_process(debug: bool) -> None:
  """Quietens libraries; nothing here imports one."""
  if not debug:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  logging.set_verbosity(logging.INFO if debug else logging.WARNING)
  if not flags.FLAGS.is_parsed():
    # Libraries may read their own global flags: let them have the defaults.
    flags.FLAGS(['jumprelu'])


def _summary(command: str) -> str:
  """The command's first docstring line, read without importing it."""
  spec = importlib.util.find_spec(f'jumprelu.run.{command}')
  if spec is None or spec.origin is None:
    return f'  {command}'
  tree = ast.parse(pathlib.Path(spec.origin).read_text('utf-8'))
  doc = ast.get_docstring(tree) or ''
  return f'  {command:<10} {doc.partition(chr(10))[0]}'


def _flag_help(flag: flags.Flag[Any]) -> str:
  name, kind = f'--{flag.name}', ''
  if flag.boolean:
    name = f'--[no]{flag.name}'
  elif isinstance(flag.parser, flags.EnumParser):
    kind = '=' + '|'.join(flag.parser.enum_values)
  else:
    words = {'string': 'TEXT', 'int': 'INT', 'float': 'NUMBER'}
    found = flag.parser.flag_type()
    kind = '=' + words.get(found, found)
  text = flag.help or ''
  if flag.default not in (None, '') and not flag.boolean:
    text += f' (default: {flag.default})'
  text = flags.text_wrap(text[:1].upper() + text[1:], 79, '      ')
  return f'  {name}{kind}\n{text}'


def _unknown_flag(arg: str, names: Sequence[str]) -> str:
  name = arg.lstrip('-').partition('=')[0]
  return f'unknown flag --{name}{dotted.nearest(name, names)}'


def _fail(prog: str, message: str, code: int) -> int:
  print(f'{prog}: {" ".join(message.split())}', file=sys.stderr)
  return code


if __name__ == '__main__':
  sys.exit(main())
