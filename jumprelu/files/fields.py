"""Fields of the variants' configs: their help, and what values they take."""

from collections.abc import Iterable
import dataclasses
import math
from typing import Any

from jumprelu import errors


def field(default: Any, help_text: str) -> Any:
  """Make a field with the help that `--help` shows."""
  return dataclasses.field(default=default, metadata={'help': help_text})


def check_positive(config: Any, *names: str) -> None:
  """Refuse what is not finite and above 0."""
  for name in names:
    value = getattr(config, name)
    check(config, name, 0 < value < math.inf, 'above 0')


def check_choice(config: Any, name: str, choices: Iterable[str]) -> None:
  """Refuse what is none of the choices."""
  valid = getattr(config, name) in choices
  check(config, name, valid, ' or '.join(choices))


def check(config: Any, name: str, valid: bool, rule: str) -> None:
  """Refuse a field whose value is not valid, naming it and the rule."""
  if not valid:
    part = config.name or type(config).__module__.rpartition('.')[2]
    value = getattr(config, name)
    raise errors.UserError(f'{part}.{name} must be {rule}, got {value!r}')
