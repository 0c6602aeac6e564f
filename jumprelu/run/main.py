"""The console script: finds the command, parses its flags, sets exit codes.

Every error that a user can fix results in one line on stderr and an exit code
for its kind (see `jumprelu/errors.py`). Launchers retry a process that exits
with 1, which is a crash, but not one that exits with 2, which is a bad flag.
absl's `app.run` is not used, because it exits with 1 on a bad flag too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
import contextlib
import gc
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
from jumprelu.files import cache_folder, dotted, output
from jumprelu.run import flag_help, signals
from jumprelu.run import flags as flags_lib

COMMANDS = (
    'demo',
    'train',
    'evaluate',
    'release',
    'verify',
    'export',
    'features',
    'explain',
    'explore',
    'steer',
    'attribute',
    'harvest',
    'plan',
    'parity',
    'status',
    'curves',
    'compare',
)

_USAGE = """\
jumprelu: train, evaluate and release suites of JumpReLU sparse autoencoders
on the activations of Gemma 2 and 3.

usage: jumprelu COMMAND [--flag=value ...]

commands:
{commands}

  jumprelu COMMAND --help    describe a command and its main flags
  jumprelu COMMAND --helpfull   describe all flags of a command
  jumprelu --version

Start with `jumprelu demo`: it needs no download, no account and no
accelerator, and takes a few minutes.

Token caches and compiled programs are stored in $JUMPRELU_CACHE (default:
~/.cache/jumprelu). With JAX_ENABLE_COMPILATION_CACHE=false, compiled programs
are not stored.
"""

# Errors that a user can fix.
_USER_ERRORS = (errors.UserError, errors.NumericalError, *errors.PATH_ERRORS)


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
  prog = f'jumprelu {name}'
  try:
    with signals.Signals(prog):
      command: Any = importlib.import_module(f'jumprelu.run.{name}')
      return run_command(command, prog, argv)
  except KeyboardInterrupt as error:
    return _interrupted(prog, error)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
  """Pauses garbage collection, which finds nothing in an import of libraries.

  It takes a sixth of the time of a command that ends at a wrong flag.
  """
  gc.disable()
  try:
    yield
  finally:
    gc.enable()


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
  with output.dropped_if_closed():
    return _run_command(command, prog, argv)


def _run_command(command: Command, prog: str, argv: Sequence[str]) -> int:
  debug = '--debug' in argv
  _prepare_process(debug)
  try:
    flag_values = _new_flags()
    with _no_collection():
      # Imports the configs, and with them JAX.
      command.define_flags(flag_values)
    # Precedes parsing, so that --help works even if other flags are invalid.
    part = flag_help.requested(argv)
    if part is not None:
      text = flag_help.text(
          prog,
          command.__doc__ or '',
          flag_values,
          part=part,
          main_flags=getattr(command, 'MAIN_FLAGS', ()),
      )
      print(text, end='')
      return 0
    if extra := getattr(command, 'EXTRA', None):
      extras.check(extra)
    parse(flag_values, argv, getattr(command, 'POSITIONAL', None))
    _expand_homes(flag_values)
    return command.run(flag_values) or 0
  except (*_USER_ERRORS, flags.Error) as error:
    if debug:
      traceback.print_exc()
    return _fail(prog, str(error), getattr(error, 'exit_code', 2))
  except KeyboardInterrupt as error:
    return _interrupted(prog, error)
  except Exception as error:
    if not debug and errors.is_wrong_path(error):
      return _fail(prog, str(error), errors.UserError.exit_code)
    if debug or not (message := errors.temporary(error)):
      raise
    return _fail(prog, message, errors.EXIT_TRY_AGAIN)


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


def _expand_homes(flag_values: flags.FlagValues) -> None:
  """Expands the ~ in --flag=~/path, which bash and zsh leave as it is.

  Fields of configs are stored as written; their readers expand them.
  """
  for flag in flag_values.flags_by_module_dict():
    for item in flag_values.get_flags_for_module(flag):
      if type(item.parser) is flags.ArgumentParser and isinstance(
          item.value, str
      ):
        item.value = os.path.expanduser(item.value)


def _new_flags() -> flags.FlagValues:
  """Returns flags that consist of --help, --helpfull and --debug.

  absl's global flags, about a hundred, are left out.
  """
  flag_values = flags.FlagValues()
  for name, text in (
      (
          'help',
          'Show the help, or that of a section or flag, such as --help=optim;'
          ' then exit.',
      ),
      ('helpfull', 'Show the help of all flags and exit.'),
      ('debug', 'Show library logs, and tracebacks even for expected errors.'),
  ):
    flags.DEFINE_flag(
        flags.BooleanFlag(name, False, text),
        flag_values=flag_values,
        module_name=flag_help.COMMON,
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


def _unknown_flag(arg: str, names: Sequence[str]) -> str:
  """Returns the message about an unknown flag, with the nearest known one."""
  name = arg.lstrip('-').partition('=')[0]
  return f'unknown flag --{name}{flags_lib.suggest(name, names)}'


def _interrupted(prog: str, error: KeyboardInterrupt) -> int:
  """Returns the exit code; prints a line unless the signal's was printed."""
  if not isinstance(error, errors.Interrupted):
    return _fail(prog, 'interrupted', errors.EXIT_INTERRUPTED)
  return error.exit_code


def _fail(prog: str, message: str, code: int) -> int:
  """Prints a message as one line on stderr, and returns the exit code."""
  print(f'{prog}: {" ".join(message.split())}', file=sys.stderr)
  return code


if __name__ == '__main__':
  sys.exit(main())
