"""Fields of configs: their help and their checks."""

from collections.abc import Iterable
import dataclasses
import math
from typing import Any, ClassVar, Protocol, runtime_checkable

from jumprelu import errors


def field(default: Any, help_text: str) -> Any:
  """Returns a dataclass field with a default and the text of its `--help`."""
  return dataclasses.field(default=default, metadata={'help': help_text})


@runtime_checkable
class NamedConfig(Protocol):
  """A config with a name for error messages."""

  # If empty, error messages use the name of the config's module.
  name: ClassVar[str]


def check_positive(config: NamedConfig, *names: str) -> None:
  """Raises UserError unless the named fields are finite and above 0."""
  for name in names:
    value = getattr(config, name)
    check(config, name, 0 < value < math.inf, 'finite and above 0')


def check_choice(
    config: NamedConfig, name: str, choices: Iterable[str]
) -> None:
  """Raises UserError unless a field has one of the choices."""
  valid = getattr(config, name) in choices
  check(config, name, valid, ' or '.join(choices))


def check(config: NamedConfig, name: str, valid: bool, rule: str) -> None:
  """Raises UserError unless a field of `config` is valid.

  `rule` completes the message "CONFIG.FIELD must be ...".
  """
  part = config.name or type(config).__module__.rpartition('.')[2]
  require(f'{part}.{name}', getattr(config, name), valid, rule)


def check_counts(config: Any, part: str, *names: str) -> None:
  """Raises UserError unless the named fields of `config` are at least 1.

  `part` is the config's name in error messages.
  """
  for name in names:
    value = getattr(config, name)
    require(f'{part}.{name}', value, value >= 1, 'at least 1')


def check_multiple(name: str, value: int, of: str, divisor: int) -> None:
  """Raises UserError unless `divisor` divides `value`.

  The message names the nearest multiples. `of` is the divisor's name.
  """
  if value % divisor:
    below = value - value % divisor
    near = f'{below} or {below + divisor}' if below else f'{divisor}'
    raise errors.UserError(
        f'{name}={value} is not a multiple of {of}={divisor}; nearest: {near}'
    )


def require(name: str, value: Any, valid: bool, rule: str) -> None:
  """Raises UserError unless the field `name` is valid.

  `rule` completes the message "NAME must be ...".
  """
  if not valid:
    raise errors.UserError(f'{name} must be {rule}, got {value!r}')
