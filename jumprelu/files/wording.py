"""Words of messages."""


def count(number: int, noun: str) -> str:
  """Returns the number and the noun, such as '1 member' or '2,048 members'."""
  return f'{number:,} {noun}{"s" * (number != 1)}'
