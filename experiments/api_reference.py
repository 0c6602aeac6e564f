"""Writes docs/api.md: the public API, from its docstrings.

python -m experiments.api_reference
"""

import functools
import inspect
import pathlib
from typing import Any

import jumprelu

_PATH = pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'api.md'
_HEAD = """# The public API

Made by `python -m experiments.api_reference` from the docstrings. The public
names are imported when they are first used. All examples run in the tests, on a
suite with the demo's results. They begin with these lines:

"""
# Public values without a docstring.
_TABLES = {
    'SITES': 'Sites of SAEs: the activations that they read and reconstruct.',
    'VARIANTS': 'Variants of SAEs: their classes and configs.',
}
_RESULTS_HEAD = """## Results

The classes of the results of these calls; they are not constructed directly.
"""


def render() -> str:
  """Returns the page."""
  _, lines, _ = (jumprelu.__doc__ or '').split('\n\n')
  parts = [_HEAD + f'```text\n{lines}\n```\n', _contents()]
  for name in jumprelu.__all__:
    value = getattr(jumprelu, name)
    parts.append(f'## jumprelu.{name}\n')
    if inspect.isclass(value):
      parts += _class(name, value)
    elif callable(value):
      parts.append(_block(value))
    else:
      keys = ', '.join(f'`{key}`' for key in value)
      parts.append(f'{_TABLES[name]} Keys: {keys}.\n')
  parts.append(_RESULTS_HEAD)
  for value in results():
    parts.append(f'### {value.__name__}\n')
    parts += _class(value.__name__, value)
  return '\n'.join(parts)


def _contents() -> str:
  """Returns a table of the public names with their first lines."""
  rows = ['| name | contents |', '|---|---|']
  for name in jumprelu.__all__:
    value = getattr(jumprelu, name)
    text = _TABLES.get(name) or inspect.getdoc(value)
    line = (text or '').partition('\n')[0]
    rows.append(f'| [`{name}`](#jumprelu{name.lower()}) | {line} |')
  return '\n'.join(rows) + '\n'


def _class(name: str, value: type) -> list[str]:
  return [
      _block(value),
      *(
          f'### {name}.{member}\n\n{_block(function)}'
          for member, function in members(value)
      ),
  ]


def results() -> list[type]:
  """Returns the classes of the results of public functions."""
  from jumprelu.api import attributions, dictionary, latents, tracing
  from jumprelu.api import results as results_lib

  return [
      results_lib.Activations,
      results_lib.Top,
      results_lib.Active,
      attributions.Attribution,
      attributions.Effect,
      tracing.Trace,
      tracing.SiteEffects,
      tracing.Node,
      tracing.Point,
      results_lib.Generation,
      latents.Latent,
      latents.Examples,
      latents.Example,
      dictionary.SparseLatents,
  ]


def members(value: type) -> list[tuple[str, Any]]:
  """Returns the public methods and properties of a class, in order."""
  known = {}
  for base in reversed(value.__mro__):
    if base.__module__.startswith('jumprelu'):
      known |= vars(base)
  kinds = (property, functools.cached_property)
  return [
      (name, member)
      for name, member in known.items()
      if not name.startswith('_')
      and (inspect.isfunction(member) or isinstance(member, kinds))
  ]


def _block(value: Any) -> str:
  """Returns a signature, unless it is a property's, and the docstring."""
  text = inspect.getdoc(value) or ''
  if not inspect.isfunction(value):
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
