"""Flags from config dataclasses: one absl flag per leaf, by its dotted path.

The dataclass is the single source of names, types, defaults and help. A flag
that is absent stays None, so that a recipe's value holds unless a flag
overrides it. A value that cannot be parsed is kept until `build`, so that a
single message names every bad flag.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import enum
import types
import typing
from typing import Any, TypeVar

from absl import flags

from jumprelu import errors
from jumprelu.files import dotted

T = TypeVar('T', bound=dotted.Dataclass)


@dataclasses.dataclass(frozen=True)
class _Unreadable:
  """The reason why the text of a flag cannot be parsed as the flag's type."""

  reason: str


class _Parser(flags.ArgumentParser):
  """Parses the text of one leaf."""

  def __init__(self, kind: Any):
    super().__init__()
    self.kind = kind

  def parse(self, argument: Any) -> Any:
    if not isinstance(argument, str):
      return argument
    try:
      return parse_text(self.kind, argument)
    except ValueError as error:
      return _Unreadable(str(error))

  def flag_type(self) -> str:
    return _placeholder(self.kind)


def define(
    flag_values: flags.FlagValues,
    config: dotted.Dataclass,
    *,
    prefix: str = '',
    alternatives: Mapping[str, dotted.Dataclass] | None = None,
    only: Sequence[str] | None = None,
) -> None:
  """Declares a flag for each leaf of `config`, whose values are the defaults.

  `only` restricts the flags to these leaves; a name that ends in a dot covers
  all leaves below that path. `alternatives` are other configs of the same class
  (recipes) by name; the help shows their values where they differ.
  """
  others = {
      name: dotted.leaves(other) for name, other in (alternatives or {}).items()
  }
  for path, leaf in dotted.leaves(config).items():
    if only is not None and not dotted.is_among(path, only):
      continue
    # An empty default is not shown, nor is `recipe` for the recipe's own name.
    shown = [f'default: {show(leaf.value)}'] if leaf.value != '' else []
    for name, other in others.items():
      if other[path].value not in (leaf.value, name):
        shown.append(f'{name}: {show(other[path].value)}')
    flag = flags.Flag(
        _Parser(leaf.type),
        None,
        prefix + path,
        None,
        leaf.help + (f' ({"; ".join(shown)})' if shown else ''),
        boolean=leaf.type is bool,
    )
    flags.DEFINE_flag(
        flag, flag_values=flag_values, module_name=_group(config, prefix, path)
    )


def build(
    flag_values: flags.FlagValues,
    config: T,
    make: Callable[[Mapping[str, Any]], T] | None = None,
    *,
    prefix: str = '',
    only: Sequence[str] | None = None,
) -> T:
  """Returns the config that the flags describe.

  A single error names every problem. `only` must equal that of `define`. `make`
  receives the values of the flags that are present, by dotted path; by default
  they replace those of `config`.
  """
  present = {}
  problems = []
  for path in dotted.leaves(config):
    if only is not None and not dotted.is_among(path, only):
      continue
    flag = flag_values[prefix + path]
    if flag.present and isinstance(flag.value, _Unreadable):
      problems.append(f'--{prefix}{path}: {flag.value.reason}')
    elif flag.present:
      present[path] = flag.value
  try:
    result = make(present) if make else dotted.replace(config, present)
  except errors.UserError as error:
    if not problems:
      raise
    problems.append(str(error))
    result = config
  if problems:
    raise errors.UserError('; '.join(problems))
  return result


def parse_text(kind: Any, text: str) -> Any:
  """Returns `text` parsed as a leaf of type `kind`, or raises ValueError."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    if text.strip().lower() in ('', 'none'):
      return None
    return parse_text(_without_none(args), text)
  if origin is tuple:
    items = [item.strip() for item in text.split(',')]
    return tuple(parse_text(args[0], item) for item in items if item)
  if kind is bool:
    return _parse_bool(text)
  if kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      noun = 'an integer' if kind is int else 'a number'
      raise ValueError(f'{text!r} is not {noun}') from None
  return dotted.coerce(kind, text)


def show(value: Any) -> str:
  """Returns a leaf's value as a user would type it in a flag."""
  if isinstance(value, enum.Enum):
    return str(value.value)
  if isinstance(value, tuple):
    return ','.join(map(show, value)) or 'none'
  if isinstance(value, int) and value >= 10_000:
    return f'{value:_}'
  if value is None or value == '':
    return 'none'
  return str(value)


def _parse_bool(text: str) -> bool:
  words = {'true': True, '1': True, 'false': False, '0': False}
  if text.lower() not in words:
    raise ValueError(f'{text!r} is neither true nor false')
  return words[text.lower()]


def _placeholder(kind: Any) -> str:
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return _placeholder(_without_none(args))
  if origin is tuple:
    return f'{_placeholder(args[0])},...'
  if origin is typing.Literal:
    return '|'.join(map(str, args))
  if isinstance(kind, type) and issubclass(kind, enum.Enum):
    return '|'.join(str(member.value) for member in kind)
  return {int: 'INT', float: 'NUMBER', str: 'TEXT'}.get(kind, 'VALUE')


def _without_none(args: tuple[Any, ...]) -> Any:
  (kind,) = [arg for arg in args if arg is not type(None)]
  return kind


def _group(config: dotted.Dataclass, prefix: str, path: str) -> str:
  """Returns a flag's heading in `--help`: path and purpose of its section."""
  section, names = config, path.split('.')[:-1]
  for name in names:
    section = getattr(section, name)
  text = (type(section).__doc__ or '').partition('\n')[0].rstrip('.')
  section_path = (prefix + '.'.join(names)).rstrip('.')
  return ': '.join(filter(None, [section_path, text]))
