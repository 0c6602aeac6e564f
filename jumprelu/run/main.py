"""The console script: finds the command, parses its flags, sets exit codes.

Every error that a user can fix results in one line on stderr and an exit code
for its kind (see `jumprelu/errors.py`). Launchers retry a process that exits
with 1, which is a crash, but not one that exits with 2, which is a bad flag.
absl's `app.run` is not used, because it exits with 1 on a bad flag too.
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
from typing import Any, Protocol, runtime_checkable

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
    'features',
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

  jumprelu COMMAND --help    describe a command, its flags and their defaults
  jumprelu --version

Start with `jumprelu demo`: it needs no download, no account and no
accelerator, and takes a few minutes.

Token caches and compiled programs are stored in $JUMPRELU_CACHE (default:
~/.cache/jumprelu). With JAX_ENABLE_COMPILATION_CACHE=false, compiled programs
are not stored.
"""

# Errors that a user can fix. The operating system raises the last three for
# wrong paths and missing permissions.
_USER_ERRORS = (
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
    return _fail('jumprelu', 'no command: use ' + ', '.join(COMMANDS), 2)
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
        f'unknown {kind} {first!r}{dotted.nearest(first, COMMANDS)}; the'
        f' commands are {", ".join(COMMANDS)}',
        2,
    )
  return launch(first, argv[1:])


def launch(name: str, argv: Sequence[str] | None = None) -> int:
  """Runs one command on its arguments and returns the exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  # Precedes the import of the command, because libraries read environment
  # variables when they are imported.
  _prepare_process('--debug' in argv)
  # A caller that has imported jax has configured the compilation cache itself.
  if 'jax' not in sys.modules:
    cache_folder.keep_programs()
  command: Any = importlib.import_module(f'jumprelu.run.{name}')
  return run_command(command, f'jumprelu {name}', argv)


@runtime_checkable
class Command(Protocol):
  """The interface of a command's module.

  The docstring of `jumprelu.run` lists its optional attributes too.
  """

  @staticmethod
  def define_flags(flag_values: flags.FlagValues, /) -> None:
    """Declares the command's flags."""

  @staticmethod
  def run(flag_values: flags.FlagValues, /) -> int | None:
    """Runs the command; returns the exit code, where None means 0."""


def run_command(command: Command, prog: str, argv: Sequence[str]) -> int:
  """Runs a command on its arguments and returns the exit code."""
  debug = '--debug' in argv
  _prepare_process(debug)
  try:
    flag_values = _new_flags()
    command.define_flags(flag_values)
    # Precedes parsing, so that --help works even if other flags are invalid.
    if not {'--help', '-h', '-help'}.isdisjoint(argv):
      print(help_text(prog, command.__doc__ or '', flag_values), end='')
      return 0
    if extra := getattr(command, 'EXTRA', None):
      extras.check(extra)
    parse(flag_values, argv, getattr(command, 'POSITIONAL', None))
    return command.run(flag_values) or 0
  except (*_USER_ERRORS, flags.Error) as error:
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
  """Sets the flags in `argv`.

  Args:
    flag_values: The flags to set.
    argv: The arguments.
    positional: The flag that bare arguments set; several if it is a list flag.

  Raises:
    UserError: a flag is unknown (the message names all of them), or a bare
      argument is not allowed.
    flags.Error: a value is invalid.
  """
  rest = flag_values(['jumprelu', *argv], known_only=True)[1:]
  unknown = [arg for arg in rest if arg.startswith('-') and arg != '-']
  if unknown:
    raise errors.UserError(
        '; '.join(_unknown_flag(arg, list(flag_values)) for arg in unknown)
    )
  takes_several = positional and isinstance(
      flag_values[positional].parser, flags.ListParser
  )
  if positional and (len(rest) == 1 or (takes_several and rest)):
    flag_values[positional].parse(rest if takes_several else rest[0])
    flag_values[positional].using_default_value = False
    rest = []
  if rest:
    raise errors.UserError(
        f'unexpected argument {rest[0]!r}: flags are written --name=value'
    )


def help_text(prog: str, doc: str, flag_values: flags.FlagValues) -> str:
  """Returns a command's docstring and flags, grouped by config section."""
  parts = [f'{prog}: {doc.strip()}', f'usage: {prog} [--flag=value ...]']
  for group, members in flag_values.flags_by_module_dict().items():
    # absl groups flags by the module that defined them; `flags.define` uses the
    # heading of the config section as the module name.
    if group == __name__:
      continue
    title = 'flags' if group in sys.modules else group
    parts.append('\n'.join([f'{title}:', *map(_flag_help, members)]))
  common = flag_values.flags_by_module_dict()[__name__]
  parts.append('\n'.join(['flags of every command:', *map(_flag_help, common)]))
  return '\n\n'.join(parts) + '\n'


def _new_flags() -> flags.FlagValues:
  """Returns flags that consist of --help and --debug.

  absl's global flags, about a hundred, are left out.
  """
  flag_values = flags.FlagValues()
  for name, text in (
      ('help', 'Show this help and exit.'),
      ('debug', 'Show library logs, and tracebacks even for expected errors.'),
  ):
    flags.DEFINE_flag(
        flags.BooleanFlag(name, False, text),
        flag_values=flag_values,
        module_name=__name__,
    )
  return flag_values


def _prepare_process(debug: bool) -> None:
  """Silences the libraries' logs unless `debug`, without importing any."""
  if not debug:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  logging.set_verbosity(logging.INFO if debug else logging.WARNING)
  if not flags.FLAGS.is_parsed():
    # Libraries may read absl's global flags, which raises an error before they
    # are parsed.
    flags.FLAGS(['jumprelu'])


def _summary(command: str) -> str:
  """Returns a command's line in the list of commands.

  The first line of the module's docstring is read without importing the module,
  because an import is slow.
  """
  spec = importlib.util.find_spec(f'jumprelu.run.{command}')
  if spec is None or spec.origin is None:
    return f'  {command}'
  tree = ast.parse(pathlib.Path(spec.origin).read_text('utf-8'))
  doc = ast.get_docstring(tree) or ''
  return f'  {command:<10} {doc.partition(chr(10))[0]}'


def _flag_help(flag: flags.Flag[Any]) -> str:
  """Returns a flag's entry in the help: name, placeholder, text and default."""
  name, kind = f'--{flag.name}', ''
  text, default = flag.help or '', flag.default
  if flag.boolean:
    name = f'--[no]{flag.name}'
  elif isinstance(flag.parser, flags.EnumParser):
    values = '|'.join(flag.parser.enum_values)
    kind = f'={values}'
    # absl repeats the values at the start of the help text.
    text = text.removeprefix(f'<{values}>: ')
  elif isinstance(flag.parser, flags.ListParser):
    kind = '=TEXT,...'
    default = ','.join(default or ())
  else:
    placeholders = {'string': 'TEXT', 'int': 'INT', 'float': 'NUMBER'}
    type_name = flag.parser.flag_type()
    kind = '=' + placeholders.get(type_name, type_name)
  if default not in (None, '') and not flag.boolean:
    text += f' (default: {default})'
  text = flags.text_wrap(text[:1].upper() + text[1:], 79, '      ')
  return f'  {name}{kind}\n{text}'


def _unknown_flag(arg: str, names: Sequence[str]) -> str:
  """Returns the message about an unknown flag, with the nearest known one."""
  name = arg.lstrip('-').partition('=')[0]
  return f'unknown flag --{name}{dotted.nearest(name, names)}'


def _fail(prog: str, message: str, code: int) -> int:
  """Prints a message as one line on stderr, and returns the exit code."""
  print(f'{prog}: {" ".join(message.split())}', file=sys.stderr)
  return code


if __name__ == '__main__':
  sys.exit(main())
