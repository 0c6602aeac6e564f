"""Trees of frozen dataclasses, addressed by dotted path and stored as JSON.

A config is a frozen dataclass. Each of its fields is a leaf (a bool, int,
float, str, enum or literal, or a tuple or optional of those) or another such
dataclass. `run/flags.py` makes a flag of each leaf.
"""

import collections
from collections.abc import Callable, Iterable, Mapping
import dataclasses
import difflib
import enum
import json
import types
import typing
from typing import (
    Any,
    ClassVar,
    Protocol,
    TypeGuard,
    TypeVar,
    runtime_checkable,
)

from jumprelu import errors


@runtime_checkable
class Dataclass(Protocol):
  """An instance of any dataclass."""

  __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


T = TypeVar('T')
C = TypeVar('C', bound=Dataclass)


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A field at the end of a path, with its value in a config."""

  path: str
  type: Any
  value: Any
  help: str


def leaves(config: Dataclass, prefix: str = '') -> dict[str, Leaf]:
  """Returns the leaves by dotted path, in the order of definition."""
  hints = typing.get_type_hints(type(config))
  by_path = {}
  for field in dataclasses.fields(config):
    path, value = prefix + field.name, getattr(config, field.name)
    if _is_config(value):
      by_path.update(leaves(value, path + '.'))
    else:
      text = field.metadata.get('help', '')
      by_path[path] = Leaf(path, hints[field.name], value, text)
  return by_path


def _is_config(value: Any) -> TypeGuard[Dataclass]:
  """Returns whether a value is a dataclass; `isinstance` would be slow."""
  return hasattr(type(value), '__dataclass_fields__')


def is_among(path: str, names: Iterable[str]) -> bool:
  """Returns whether the names include a path.

  A name that ends in a dot, such as 'mesh.', includes every path that starts
  with it.
  """
  return any(
      path.startswith(name) if name.endswith('.') else path == name
      for name in names
  )


def replace(config: C, changes: Mapping[str, Any]) -> C:
  """Returns `config` with changed leaves.

  Args:
    config: The config, which is not modified.
    changes: The new values, by dotted path.

  Raises:
    UserError: It names all unknown paths, all values of a wrong type, and the
      first error of each config's own checks.
  """
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


def to_dict(config: Dataclass) -> dict[str, Any]:
  """Returns `config` as nested dicts of JSON values, without rounding."""
  plain = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    nested = _is_config(value)
    plain[field.name] = to_dict(value) if nested else _plain(value)
  return plain


def from_dict(default: C, data: Mapping[str, Any]) -> C:
  """Returns the config from which `to_dict` made `data`.

  Args:
    default: Any config of the same class. Its values are not used.
    data: The result of `to_dict`.

  Raises:
    UserError: A field is unknown, missing or invalid. A missing field has no
      default, because a default could be wrong without a sign.
  """
  flat = _flatten(default, data, '')
  known = leaves(default)
  missing = [path for path in known if path not in flat]
  problems = [_unknown(path, known) for path in flat if path not in known]
  problems += [f'field {path!r} is missing' for path in missing]
  if problems:
    raise errors.UserError('; '.join(problems))
  return replace(default, flat)


def to_json(config: Dataclass) -> str:
  """Returns `config` as indented JSON."""
  return json.dumps(to_dict(config), indent=2, allow_nan=False) + '\n'


def from_json(
    default: C,
    text: str,
    *,
    migrate: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    where: str = 'the config',
) -> C:
  """Returns the config from which `to_json` made `text`.

  Args:
    default: Any config of the same class. Its values are not used.
    text: The result of `to_json`, possibly of an older version.
    migrate: Returns the object in `text` with the fields of this version.
    where: The place of the text, for messages.

  Raises:
    DataError: The text is not a JSON object.
    UserError: `from_dict` refuses the object.
  """
  try:
    data = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise errors.DataError(f'{where}: not JSON: {error}') from error
  if not isinstance(data, dict):
    raise errors.DataError(f'{where}: not a JSON object')
  fields = migrate(data)
  try:
    return from_dict(default, fields)
  except errors.UserError as error:
    raise errors.UserError(f'{where}: {error}') from None


def coerce(kind: Any, value: Any) -> Any:
  """Returns `value` as the leaf type `kind`.

  If `kind` requires it, an int is converted to a float, an iterable to a tuple,
  and a value of an enum to its member. No other conversion is made.

  Raises:
    ValueError: The value is not of this type.
  """
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
    try:
      return float(value)
    except OverflowError:
      raise ValueError('more digits than a number can have') from None
  if type(value) is not kind:
    raise ValueError(f'{value!r} is not of type {kind.__name__}')
  return value


def nearest(name: str, names: Iterable[str]) -> str:
  """Returns ' (did you mean X?)' for the nearest name, '' if none is near."""
  near = difflib.get_close_matches(name, list(names), n=1)
  return f' (did you mean {near[0]}?)' if near else ''


def repeated(values: Iterable[T]) -> list[T]:
  """Returns the values that occur more than once, each of them once."""
  return [value for value, n in collections.Counter(values).items() if n > 1]


def _rebuild(
    config: Dataclass,
    changes: Mapping[str, Any],
    prefix: str,
    problems: list[str],
) -> Any:
  kwargs = {}
  for field in dataclasses.fields(config):
    path, value = prefix + field.name, getattr(config, field.name)
    if _is_config(value):
      kwargs[field.name] = _rebuild(value, changes, path + '.', problems)
    else:
      kwargs[field.name] = changes.get(path, value)
  try:
    return type(config)(**kwargs)
  except ValueError as error:
    # Adds the path of a nested config, because the error may name only the
    # config's field.
    text, part = str(error), prefix.rstrip('.')
    problems.append(text if part in text else f'{part}: {text}')
    return config


def _flatten(
    default: Any, data: Mapping[str, Any], prefix: str
) -> dict[str, Any]:
  flat = {}
  for name, value in data.items():
    part = getattr(default, name, None)
    if _is_config(part) and isinstance(value, Mapping):
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
