"""JSON text whose integers fit into 64 bits."""

from collections.abc import Iterator
import json
from typing import Any


class LargeIntegerError(ValueError):
  """An integer does not fit into 64 bits."""


def loads(text: str | bytes) -> Any:
  """Returns the value of JSON text, whose integers must fit into 64 bits.

  A larger integer cannot be converted to a float or to an element of an array.

  Raises:
    LargeIntegerError: An integer is too large; the message names its field.
    ValueError: The text is not JSON.
    RecursionError: The text is nested too deeply.
  """
  try:
    return json.loads(text, parse_int=_integer)
  except LargeIntegerError as error:
    field = next(_large_fields(json.loads(text), ''))
    raise LargeIntegerError(f'{field}{error}') from None


def _integer(digits: str) -> int:
  value = int(digits)
  if not -(2**63) <= value < 2**63:
    raise LargeIntegerError(
        f'the integer {digits[:8]}... does not fit into 64 bits'
    )
  return value


def _large_fields(value: Any, name: str) -> Iterator[str]:
  """Yields 'NAME: ' for each integer that is too large; '' without a name."""
  if isinstance(value, int) and not -(2**63) <= value < 2**63:
    yield name and f'{name}: '
  children = value.items() if isinstance(value, dict) else ()
  if isinstance(value, list):
    children = enumerate(value)
  for key, child in children:
    yield from _large_fields(child, f'{name}.{key}' if name else str(key))
