"""Help texts: a command's main flags, a part of its flags, or all of them.

A command with many flags names the main ones in `MAIN_FLAGS`. Its --help shows
these, and how to show the others. `--help=PART` shows the flags of a section,
such as optim or sae.gated, or a single flag. `--helpfull` shows all flags.
"""

from collections.abc import Sequence
import sys
import textwrap
from typing import Any

from absl import flags

from jumprelu import errors
from jumprelu.run import flags as flags_lib

# The section of the flags that every command has.
COMMON = 'flags of every command'
# The part that consists of all flags.
ALL = 'full'

_WIDTH = 79
_INDENT = ' ' * 6
# Flags whose names are not shown like those of other flags.
_SHOWN = {'help': '--help[=PART]', 'helpfull': '--helpfull'}

# A flag's `parser` and `default` depend on its type.
_Flag = flags.Flag[Any]
_Sections = dict[str, list[_Flag]]


def requested(argv: Sequence[str]) -> str | None:
  """Returns the part in --help=PART, or None if no help is requested.

  The part is empty for --help, and `ALL` for --helpfull.
  """
  for arg in argv:
    name, _, part = arg.lstrip('-').partition('=')
    if arg.startswith('-') and name in ('help', 'h'):
      return part
    if arg.startswith('-') and name == 'helpfull':
      return ALL
  return None


def text(
    prog: str,
    doc: str,
    flag_values: flags.FlagValues,
    *,
    part: str = '',
    main_flags: Sequence[str] = (),
) -> str:
  """Returns the help of a command.

  Args:
    prog: The command, such as 'jumprelu train'.
    doc: Its docstring, which is left out if only some flags are described.
    flag_values: Its flags.
    part: The result of `requested`.
    main_flags: The flags that --help shows; all if empty.

  Raises:
    UserError: there are no flags named `part`.
  """
  sections = _sections(flag_values)
  if part and part != ALL:
    shown = _select(sections, part)
    return '\n\n'.join(_section(*item) for item in shown.items()) + '\n'
  first, newline, rest = doc.strip().partition('\n')
  paragraphs = [
      _fill(f'{prog}: {first}') + newline + rest,
      f'usage: {prog} [--flag=value ...]',
  ]
  if part == ALL or not main_flags:
    paragraphs += [_section(*item) for item in sections.items()]
  else:
    shown = [flag_values[name] for name in main_flags]
    paragraphs.append(_section('main flags', shown, brief=True))
    paragraphs.append(_more(sections, main_flags))
  return '\n\n'.join(paragraphs) + '\n'


def _sections(flag_values: flags.FlagValues) -> _Sections:
  """Returns the flags by heading, in the order of their declaration."""
  # absl groups flags by the module that defined them; `flags.define` uses the
  # heading of the config section as the module name.
  headings = {
      flag.name: heading
      for heading, members in flag_values.flags_by_module_dict().items()
      for flag in members
  }
  sections: _Sections = {}
  for name in flag_values:
    heading = headings[name]
    if heading in sys.modules:
      heading = 'flags'
    sections.setdefault(heading, []).append(flag_values[name])
  common = sections.pop(COMMON, [])
  return sections | {COMMON: common}


def _select(sections: _Sections, part: str) -> _Sections:
  """Returns the sections with only the flags of a part."""
  path = part.strip('-').rstrip('.')
  for matches in (
      lambda name: f'{name}.'.startswith(f'{path}.'),
      # The end of a path, such as gated or learning_rate.
      lambda name: f'.{path}.' in f'.{name}.',
  ):
    selected = {
        heading: [flag for flag in members if matches(flag.name)]
        for heading, members in sections.items()
    }
    selected = {
        heading: members for heading, members in selected.items() if members
    }
    if selected:
      return selected
  names = [flag.name for members in sections.values() for flag in members]
  groups = dict.fromkeys(x.partition('.')[0] for x in names if '.' in x)
  raise errors.UserError(
      f'--help={part}: no flag and no section has this name'
      f'{flags_lib.suggest(path, [*groups, *names])}'
      + (f'; the sections are {", ".join(groups)}' if groups else '')
  )


def _section(
    heading: str, members: Sequence[_Flag], *, brief: bool = False
) -> str:
  """Returns a section of the help; `brief` shows the start of each text."""
  return '\n'.join(
      [_fill(f'{heading}:'), *(_entry(flag, brief) for flag in members)]
  )


def _entry(flag: _Flag, brief: bool) -> str:
  """Returns a flag's entry in the help: name, placeholder, text and default."""
  name, kind = _SHOWN.get(flag.name, f'--{flag.name}'), ''
  body, _, details = (flag.help or '').partition('\n\n')
  default = flag.default
  if flag.name in _SHOWN:
    default = None
  elif flag.boolean:
    name = f'--[no]{flag.name}'
  elif isinstance(flag.parser, flags.EnumParser):
    values = '|'.join(flag.parser.enum_values)
    kind = f'={values}'
    # absl repeats the values at the start of the help text.
    body = body.removeprefix(f'<{values}>: ')
  elif isinstance(flag.parser, flags.ListParser):
    kind = '=TEXT,...'
    default = ','.join(default or ())
  else:
    placeholders = {'string': 'TEXT', 'int': 'INT', 'float': 'NUMBER'}
    type_name = flag.parser.flag_type()
    kind = '=' + placeholders.get(type_name, type_name)
  if default not in (None, ''):
    body += f' (default: {flags_lib.show(default)})'
  if details and brief:
    body += f' --help={flag.name} describes them.'
  lines = [body[:1].upper() + body[1:]]
  if not brief:
    lines += details.splitlines()
  return '\n'.join([f'  {name}{kind}', *map(_paragraph, lines)])


def _paragraph(line: str) -> str:
  """Returns an indented paragraph; further lines of an indented one hang."""
  hang = '    ' if line.startswith(' ') else ''
  return _fill(line, first=_INDENT, rest=_INDENT + hang)


def _more(sections: _Sections, main_flags: Sequence[str]) -> str:
  """Returns how to show the flags that are not among the main ones."""
  singles: list[str] = []
  # First part of the path -> {section: its description}.
  groups: dict[str, dict[str, str]] = {}
  for heading, members in sections.items():
    path, _, description = heading.partition(': ')
    for flag in members:
      if '.' in flag.name:
        group = groups.setdefault(flag.name.partition('.')[0], {})
        group[path] = description
      elif flag.name not in main_flags and heading != COMMON:
        singles.append(flag.name)
  rows = {}
  for name, group in groups.items():
    (path, description), *others = group.items()
    if others:
      description = f'{len(group)} sections, such as --help={path}'
    rows[f'--help={name}'] = description.partition(';')[0]
  if singles:
    rows['--help=NAME'] = ', '.join(singles)
  rows['--helpfull'] = 'all flags'
  width = max(map(len, rows)) + 4
  lines = [
      _fill(value, first=f'  {key}'.ljust(width), rest=' ' * width)
      for key, value in rows.items()
  ]
  return '\n'.join(['more flags:', *lines])


def _fill(line: str, *, first: str = '', rest: str = '') -> str:
  return textwrap.fill(
      line,
      _WIDTH,
      initial_indent=first,
      subsequent_indent=rest,
      break_long_words=False,
      break_on_hyphens=False,
  )
