"""Writes docs/api.md: the public API, from its docstrings.

python -m experiments.api_reference
"""

import inspect
import pathlib
from typing import Any

import jumprelu

_PATH = pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'api.md'
_HEAD = """# The public API

Made by `python -m experiments.api_reference` from the docstrings. These names
are imported when they are first used.
"""


def render() -> str:
  """Returns the page."""
  parts = [_HEAD]
  for name in jumprelu.__all__:
    value = getattr(jumprelu, name)
    parts.append(f'## jumprelu.{name}\n')
    if inspect.isclass(value):
      parts.append(_block(value))
      parts += [
          f'### {name}.{member}\n\n{_block(function)}'
          for member, function in _members(value)
      ]
    elif callable(value):
      parts.append(_block(value))
    else:
      keys = ', '.join(f'`{key}`' for key in value)
      parts.append(f'A table with the keys {keys}.\n')
  return '\n'.join(parts)


def _members(value: type) -> list[tuple[str, Any]]:
  """Returns the public methods and properties of a class, in order."""
  members = {}
  for base in reversed(value.__mro__):
    if base.__module__.startswith('jumprelu'):
      members |= vars(base)
  return [
      (name, member)
      for name, member in members.items()
      if not name.startswith('_')
      and (inspect.isfunction(member) or isinstance(member, property))
  ]


def _block(value: Any) -> str:
  """Returns a signature, unless it is a property's, and the docstring."""
  text = inspect.getdoc(value) or ''
  if isinstance(value, property) or inspect.isclass(value):
    return f'```text\n{text}\n```\n'
  parameters = inspect.signature(value).parameters.values()
  shown = [str(p.replace(annotation=p.empty)) for p in parameters]
  keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
  if keyword and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
    shown.insert(
        len(shown) - len([p for p in parameters if p.kind >= p.KEYWORD_ONLY]),
        '*',
    )
  name = value.__name__
  return f'```text\n{name}({", ".join(shown)})\n\n{text}\n```\n'


if __name__ == '__main__':
  _PATH.write_text(render(), encoding='utf-8')
  print(_PATH)
