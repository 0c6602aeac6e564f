"""Trees of frozen dataclasses: addressed by dotted path, kept as JSON.

A config is a frozen dataclass whose fields are leaves (bool, int, float, str,
enums, literals, tuples and optionals of those) or such dataclasses themselves.
The dataclass is the one source: `flags.py` makes a flag of each leaf.
"""

import collections
from collections.abc import Callable, Iterable, Mapping
import dataclasses
import difflib
import enum
import json
import types
import typing
from typing import Any, TypeVar

from jumprelu import errors

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One field at the end of a path, with its value in a given config."""

  path: str
  type: Any
  value: Any
  help: str


def leaves(config: Any, prefix: str = '') -> dict[str, Leaf]:
  """Lists the leaves of `config` by dotted path, in order of definition."""
  hints = typing.get_type_hints(type(config))
  found = {}
  for field in dataclasses.fields(config):
    path, value = prefix + field.name, getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      found.update(leaves(value, path + '.'))
    else:
      text = field.metadata.get('help', '')
      found[path] = Leaf(path, hints[field.name], value, text)
  return found


def is_among(path: str, names: Iterable[str]) -> bool:
  """Whether a path is one of the names, or below one that ends in a dot."""
  return any(
      path.startswith(name) if name.endswith('.') else path == name
      for name in names
  )


def replace(config: T, changes: Mapping[str, Any]) -> T:
  """Returns `config` with other leaves; one error names every problem."""
  known = leaves(config)
  problems = [_unknown(path, known) for path in changes if path not in known]
  coerced = {}
  for path, value in changes.items():
    if path in known:
      try:
        coerced[path] = coerce(known[path].type, value)
      except ValueError as error:
        problems.append(f'{path}: {error}')
  result = _rebuild(config, coerced, '', problems)
  if problems:
    raise errors.UserError('; '.join(problems))
  return result


def to_dict(config: Any) -> dict[str, Any]:
  """Turns `config` into nested plain values that JSON can hold exactly."""
  plain = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    nested = dataclasses.is_dataclass(value)
    plain[field.name] = to_dict(value) if nested else _plain(value)
  return plain


def from_dict(default: T, data: Mapping[str, Any]) -> T:
  """Reads what `to_dict` wrote; `default` gives the classes.

  A field that is unknown or missing is an error: a config says all of what
  was run, so a guess at a value would be wrong without a sign.
  """
  flat = _flatten(default, data, '')
  known = leaves(default)
  missing = [path for path in known if path not in flat]
  problems = [_unknown(path, known) for path in flat if path not in known]
  problems += [f'field {path!r} is missing' for path in missing]
  if problems:
    raise errors.UserError('; '.join(problems))
  return replace(default, flat)


def to_json(config: Any) -> str:
  """Writes `config` as indented JSON."""
  return json.dumps(to_dict(config), indent=2, allow_nan=False) + '\n'


def from_json(
    default: T,
    text: str,
    *,
    migrate: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
) -> T:
  """Reads JSON of `to_json`; `migrate` makes today's fields of its fields."""
  try:
    data = json.loads(text)
  except json.JSONDecodeError as error:
    raise errors.UserError(f'the config is not JSON: {error}') from error
  if not isinstance(data, dict):
    raise errors.UserError('the config is not a JSON object')
  return from_dict(default, migrate(data))


def coerce(kind: Any, value: Any) -> Any:
  """Returns `value` as the leaf type `kind`, or raises ValueError."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    (kind,) = [arg for arg in args if arg is not type(None)]
    return coerce(kind, value)
  if origin is tuple:
    if isinstance(value, str) or not isinstance(value, Iterable):
      raise ValueError(f'{value!r} is not a list')
    return tuple(coerce(args[0], item) for item in value)
  if origin is typing.Literal:
    if value not in args:
      raise ValueError(f'{value!r} is none of {", ".join(map(str, args))}')
    return value
  if isinstance(kind, type) and issubclass(kind, enum.Enum):
    try:
      return kind(value)
    except ValueError:
      choices = ', '.join(str(member.value) for member in kind)
      raise ValueError(f'{value!r} is none of {choices}') from None
  if kind is float and type(value) is int:
    return float(value)
  if type(value) is not kind:
    raise ValueError(f'{value!r} is not of type {kind.__name__}')
  return value


def nearest(name: str, names: Iterable[str]) -> str:
  """Words ' (did you mean X?)', or nothing where no name is near."""
  near = difflib.get_close_matches(name, list(names), n=1)
  return f' (did you mean {near[0]}?)' if near else ''


def repeated(values: Iterable[T]) -> list[T]:
  """The values that occur more than once."""
  return [value for value, n in collections.Counter(values).items() if n > 1]


def _rebuild(
    config: Any, changes: Mapping[str, Any], prefix: str, problems: list[str]
) -> Any:
  kwargs = {}
  for field in dataclasses.fields(config):
    path, value = prefix + field.name, getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      kwargs[field.name] = _rebuild(value, changes, path + '.', problems)
    else:
      kwargs[field.name] = changes.get(path, value)
  try:
    return type(config)(**kwargs)
  except ValueError as error:
    # A part says which of its fields is wrong; where it says only the last
    # name, the path before it tells whose field that is.
    text, part = str(error), prefix.rstrip('.')
    problems.append(text if part in text else f'{part}: {text}')
    return config


def _flatten(
    default: Any, data: Mapping[str, Any], prefix: str
) -> dict[str, Any]:
  flat = {}
  for name, value in data.items():
    part = getattr(default, name, None)
    if dataclasses.is_dataclass(part) and isinstance(value, Mapping):
      flat.update(_flatten(part, value, f'{prefix}{name}.'))
    else:
      flat[prefix + name] = value
  return flat


def _plain(value: Any) -> Any:
  if isinstance(value, enum.Enum):
    return value.value
  if isinstance(value, tuple):
    return [_plain(item) for item in value]
  return value


def _unknown(path: str, known: Iterable[str]) -> str:
  return f'unknown field {path!r}{nearest(path, known)}'
