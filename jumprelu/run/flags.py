"""Flags from config dataclasses: one absl flag per leaf, by its dotted path.

A leaf is a field that is not itself a dataclass: the field `rate` of a nested
config `optim` has the flag `--optim.rate`. The dataclass is the single source
of names, types, defaults and help. An absent flag stays None, so that it does
not override the value of a recipe. The error of a value that cannot be parsed
is kept until `build`, so that a single message names every bad flag.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import decimal
import enum
import types
import typing
from typing import Any, TypeVar

from absl import flags

from jumprelu import errors
from jumprelu.files import dotted

T = TypeVar('T', bound=dotted.Dataclass)

_MULTIPLES = {'k': 10**3, 'm': 10**6, 'b': 10**9}

# Names that users of other libraries try, and the flags with that meaning. The
# first of them that a command has is suggested.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    name: targets
    for names, targets in (
        ('l0 target', ('target_l0',)),
        (
            'lambda lmbda l1 l1_coeff l1_coefficient l0_coeff l0_coefficient'
            ' sparsity sparsity_coefficient sparsity_penalty',
            ('sparsity_coefficients',),
        ),
        ('lr learning_rate', ('optim.learning_rate',)),
        ('batch_size bs', ('batch', 'stream.batch', 'eval.lm_sequences')),
        ('d_sae dict_size latents n_latents num_latents', ('widths',)),
        ('steps num_tokens total_tokens training_tokens', ('tokens',)),
        ('hook hook_name hook_point', ('sites', 'site')),
        ('arch architecture', ('variants',)),
        ('dataset', ('data', 'text')),
        ('context_size seq_len', ('corpus.sequence_length',)),
        ('output output_dir save_dir', ('out',)),
    )
    for name in names.split()
}


@dataclasses.dataclass(frozen=True)
class _Unreadable:
  """The value of a flag whose text cannot be parsed, with the reason."""

  reason: str


class _Parser(flags.ArgumentParser):
  """The parser of one leaf's text."""

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


class _IntegerParser(flags.IntegerParser):
  """The parser of an integer flag that is not a leaf of a config."""

  def convert(self, argument: Any) -> int:
    if isinstance(argument, str):
      return parse_integer(argument)
    return super().convert(argument)


def define_integer(
    flag_values: flags.FlagValues,
    name: str,
    default: int | None,
    text: str,
    *,
    lower_bound: int | None = None,
    upper_bound: int | None = None,
) -> flags.FlagHolder:
  """Declares an integer flag; its value may be written as 2_000_000 or 2M."""
  return flags.DEFINE(
      _IntegerParser(lower_bound, upper_bound),
      name,
      default,
      text,
      flag_values=flag_values,
      serializer=flags.ArgumentSerializer(),
  )


def define_members(flag_values: flags.FlagValues) -> None:
  """Declares --members, which selects SAEs of a release by their paths."""
  flags.DEFINE_list(
      'members',
      [],
      'Only members whose path contains one of these texts.',
      flag_values=flag_values,
  )


def define_lm_dtype(flag_values: flags.FlagValues) -> None:
  """Declares --lm_dtype, the precision of the language model."""
  flags.DEFINE_enum(
      'lm_dtype',
      'auto',
      ['auto', 'float32', 'bfloat16'],
      'Precision of the language model. auto: float32 on CPU, else bfloat16.',
      flag_values=flag_values,
  )


def define(
    flag_values: flags.FlagValues,
    config: dotted.Dataclass,
    *,
    prefix: str = '',
    alternatives: Mapping[str, dotted.Dataclass] | None = None,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    title: str = '',
) -> None:
  """Declares a flag for each leaf of `config`.

  Args:
    flag_values: The flags to extend.
    config: The config, whose values are shown in the help as defaults.
    prefix: The start of each flag's name, such as 'eval.'.
    alternatives: Other configs of the same class (recipes), by name. The help
      shows their values that differ from the defaults.
    only: The paths of the leaves that have flags; all by default. A path that
      ends in a dot includes all leaves below it.
    without: The paths of leaves that have no flags.
    title: The heading in the help of the leaves outside sections; by default
      the first line of the docstring of `config`.
  """
  others = {
      name: dotted.leaves(other) for name, other in (alternatives or {}).items()
  }
  for path, leaf in dotted.leaves(config).items():
    if only is not None and not dotted.is_among(path, only):
      continue
    if path in without:
      continue
    # Empty defaults are not shown. Neither is the name of an alternative, which
    # is the value of its field `recipe`.
    shown = [f'default: {show(leaf.value)}'] if leaf.value != '' else []
    names_of: dict[str, list[str]] = {}
    for name, other in others.items():
      if other[path].value not in (leaf.value, name):
        names_of.setdefault(show(other[path].value), []).append(name)
    shown += [f'{", ".join(names)}: {text}' for text, names in names_of.items()]
    flag = flags.Flag(
        _Parser(leaf.type),
        None,
        prefix + path,
        None,
        leaf.help.rstrip('.')
        + '.'
        + (f' ({"; ".join(shown)})' if shown else ''),
        boolean=leaf.type is bool,
    )
    group = _group(config, prefix, path)
    if title and '.' not in prefix + path:
      group = title
    flags.DEFINE_flag(flag, flag_values=flag_values, module_name=group)


def build(
    flag_values: flags.FlagValues,
    config: T,
    make: Callable[[Mapping[str, Any]], T] | None = None,
    *,
    prefix: str = '',
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> T:
  """Returns the config that the flags describe.

  Args:
    flag_values: The parsed flags.
    config: The config that was passed to `define`, or another of its class.
    make: Returns the config for the values of the present flags, a mapping from
      dotted paths. By default these values replace those of `config`.
    prefix: The prefix that was passed to `define`.
    only: The paths that were passed to `define`.
    without: The paths that were passed to `define`.

  Raises:
    UserError: a value is invalid; the message names every problem.
  """
  present = {}
  problems = []
  for path in dotted.leaves(config):
    if only is not None and not dotted.is_among(path, only):
      continue
    if path in without:
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


def suggest(name: str, names: Sequence[str]) -> str:
  """Returns ' (did you mean X?)' for an unknown flag, '' if none is similar.

  A flag with the same meaning or the same end of its path is preferred to one
  with a similar spelling.
  """
  end = name.rpartition('.')[2].lower().replace('-', '_')
  similar = [other for other in _SYNONYMS.get(end, ()) if other in names][:1]
  similar = similar or [x for x in names if x.endswith(f'.{end}')][:3]
  if similar:
    return f' (did you mean {" or ".join(similar)}?)'
  return dotted.nearest(name, names)


def parse_integer(text: str) -> int:
  """Returns the integer in a text such as 2000, 2_000, 1e6, 2M, 500k or 1B.

  Raises:
    ValueError: the text is not an integer.
  """
  try:
    return int(text)
  except ValueError:
    pass
  number = text.strip().lower()
  factor = _MULTIPLES.get(number[-1:], 1)
  try:
    value = decimal.Decimal(number[:-1] if factor > 1 else number) * factor
    # The first bound excludes NaN and infinity. Huge powers of ten would take
    # long to convert.
    if abs(value) < 2**63 and value == int(value):
      return int(value)
  except decimal.DecimalException:
    pass
  raise ValueError(f'{_short(text)} is not an integer')


def parse_text(kind: Any, text: str) -> Any:
  """Returns the value of a leaf of type `kind` from the text of its flag.

  The text `none` is the empty tuple, or None if the leaf is optional. In lists
  of integers, 16k is refused, because it might mean 16_000 or 16_384.

  Raises:
    ValueError: the text is not of this type.
  """
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    if text.strip().lower() in ('', 'none'):
      return None
    return parse_text(_without_none(args), text)
  if origin is tuple:
    if text.strip().lower() == 'none':
      return ()
    items = [item.strip() for item in text.split(',')]
    if args[0] is int:
      _refuse_multiples(items)
    return tuple(parse_text(args[0], item) for item in items if item)
  if kind is bool:
    return _parse_bool(text)
  if kind is int:
    return parse_integer(text)
  if kind is float:
    try:
      return float(text)
    except ValueError:
      raise ValueError(f'{_short(text)} is not a number') from None
  return dotted.coerce(kind, text)


def show(value: Any) -> str:
  """Returns a leaf's value as text for the help, in the syntax of its flag."""
  if isinstance(value, enum.Enum):
    return str(value.value)
  if isinstance(value, tuple):
    return ','.join(map(show, value)) or 'none'
  if isinstance(value, int) and value >= 10_000:
    return f'{value:_}'
  if value is None or value == '':
    return 'none'
  return str(value)


def _short(text: str) -> str:
  """Returns the start of a value in quotes, for messages of one line."""
  return repr(text if len(text) <= 40 else text[:40] + '...')


def _refuse_multiples(items: Sequence[str]) -> None:
  """Raises ValueError if a number such as 16k is among the items."""
  for item in items:
    digits, unit = item[:-1], item[-1:].lower()
    if unit in _MULTIPLES and digits.isdecimal():
      example = f'{int(digits) * _MULTIPLES[unit]:_}'
      raise ValueError(f'{item!r}: write all digits, such as {example}')


def _parse_bool(text: str) -> bool:
  words = {'true': True, '1': True, 'false': False, '0': False}
  if text.lower() not in words:
    raise ValueError(f'{_short(text)} is neither true nor false')
  return words[text.lower()]


def _placeholder(kind: Any) -> str:
  """Returns the text that represents a value of this type in the help."""
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
  """Returns the type in an optional type's arguments that is not None."""
  (kind,) = [arg for arg in args if arg is not type(None)]
  return kind


def _group(config: dotted.Dataclass, prefix: str, path: str) -> str:
  """Returns the heading in `--help` of the section with a leaf's flag.

  It consists of the section's path and the first line of its docstring.
  """
  section, names = config, path.split('.')[:-1]
  for name in names:
    section = getattr(section, name)
  text = (type(section).__doc__ or '').partition('\n')[0].rstrip('.')
  section_path = (prefix + '.'.join(names)).rstrip('.')
  return ': '.join(filter(None, [section_path, text]))
