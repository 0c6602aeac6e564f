"""The fields of a request's JSON object, and their limits.

A field is a function of its name and its value, which returns the checked value
or raises `Refused` with a line that names the field and the cure.
"""

from collections.abc import Callable, Mapping
import json
import math
from typing import Any, NamedTuple

from jumprelu.evals import edits as edits_lib
from jumprelu.files import dotted

# The largest request in bytes: several times the longest text.
MAX_BYTES = 1 << 16
# The longest repetition of a client's value in a message, in characters.
_SHOWN = 60


class Refused(Exception):
  """A request that is refused with an HTTP status and one line."""

  def __init__(self, status: int, message: str):
    super().__init__(' '.join(message.split()))
    self.status = status


class Edit(NamedTuple):
  """An edit of a latent, with a value in units of raw activations."""

  latent: int
  op: str
  value: float


Check = Callable[[str, Any], Any]


def parse(body: bytes) -> dict[str, Any]:
  """Returns the JSON object of a request.

  Raises:
    Refused: The body is no JSON object.
  """
  try:
    value = json.loads(body.decode('utf-8'))
  except (ValueError, RecursionError) as error:
    raise Refused(400, f'the body must be JSON in UTF-8: {error}') from error
  if not isinstance(value, dict):
    raise Refused(400, 'the body must be a JSON object')
  return value


def read(
    fields: Mapping[str, Check], values: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns all fields of a request, checked; null means absent.

  Raises:
    Refused: A field is unknown or wrong.
  """
  for name in values:
    if name not in fields:
      near = dotted.nearest(name[:_SHOWN], tuple(fields))
      raise Refused(
          400,
          f'{shown(name)}: no such field{near}; fields: {", ".join(fields)}',
      )
  return {name: check(name, values.get(name)) for name, check in fields.items()}


def text(name: str, value: Any) -> str:
  """Returns a text; NUL is allowed, lone surrogates are not."""
  if not isinstance(value, str):
    raise Refused(400, f'{name}: must be a text')
  try:
    value.encode('utf-8')
  except UnicodeEncodeError as error:
    raise Refused(
        400,
        f'{name}: has a lone surrogate at index {error.start}, which is no'
        ' character; remove it',
    ) from error
  return value


def member(name: str, value: Any) -> str:
  """Returns the path of a member."""
  if not isinstance(value, str):
    raise Refused(400, f'{name}: must be the path of a member')
  return value


def any_member(name: str, value: Any) -> str | None:
  """Returns the path of a member, or None if absent."""
  return None if value is None else member(name, value)


def members(name: str, value: Any) -> list[str] | None:
  """Returns paths of members, or None if absent, which means all."""
  if value is None:
    return None
  if not isinstance(value, list) or not value:
    raise Refused(
        400, f'{name}: must be a list of paths of members; leave it out for all'
    )
  return [member(name, path) for path in value]


def token(name: str, value: Any) -> str | int | None:
  """Returns a token as id or text, or None if absent."""
  if value is None:
    return None
  if isinstance(value, str):
    return text(name, value)
  if not _is_whole(value) or value < 0:
    raise Refused(400, f'{name}: must be the id or the text of a token')
  return value


def flag(default: bool) -> Check:
  """Returns the check of true or false."""

  def check(name: str, value: Any) -> bool:
    if value is None:
      return default
    if not isinstance(value, bool):
      raise Refused(400, f'{name}: must be true or false')
    return value

  return check


def whole(default: int, low: int, high: int) -> Check:
  """Returns the check of a whole number from `low` to `high`."""

  def check(name: str, value: Any) -> int:
    if value is None:
      return default
    if not _is_whole(value) or not low <= value <= high:
      raise Refused(400, f'{name}: must be a whole number from {low} to {high}')
    return value

  return check


def number(default: float, low: float, high: float) -> Check:
  """Returns the check of a number from `low` to `high`."""

  def check(name: str, value: Any) -> float:
    if value is None:
      return default
    is_number = isinstance(value, float) or _is_whole(value)
    if not is_number or not low <= value <= high or math.isnan(value):
      raise Refused(400, f'{name}: must be a number from {low:g} to {high:g}')
    return float(value)

  return check


def edits(limit: int) -> Check:
  """Returns the check of a list of at most `limit` edits."""
  parts: dict[str, Check] = {
      'latent': whole(0, 0, 2**31 - 1),
      'op': choice(*edits_lib.OPS),
      'value': number(0.0, -1e6, 1e6),
  }

  def check(name: str, value: Any) -> list[Edit]:
    if value is None:
      return []
    if not isinstance(value, list) or len(value) > limit:
      raise Refused(400, f'{name}: must be a list of at most {limit} edits')
    if not all(isinstance(edit, dict) and 'latent' in edit for edit in value):
      raise Refused(
          400, f'{name}: an edit is an object with latent, op and value'
      )
    return [Edit(**read(parts, edit)) for edit in value]

  return check


def choice(*choices: str) -> Check:
  """Returns the check of one of the choices; the first is the default."""

  def check(name: str, value: Any) -> str:
    if value is None:
      return choices[0]
    if value not in choices:
      raise Refused(400, f'{name}: must be one of {", ".join(choices)}')
    return value

  return check


def shown(value: str) -> str:
  """Returns a client's text for a message, shortened and in ASCII."""
  return ascii(value[:_SHOWN] + '...' * (len(value) > _SHOWN))


def _is_whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)
