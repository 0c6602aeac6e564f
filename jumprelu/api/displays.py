"""Displays of the public objects: HTML for notebooks, and treescope.

Text from corpora and files is always escaped. Displays never show arrays of
parameters. treescope is optional: it calls `__treescope_repr__` of an object,
so it is imported there only after it has been imported elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
import html
from typing import Any

import numpy as np

from jumprelu.array_typing import Float, Int

# Orange for positive values and blue for negative ones (Okabe and Ito), which
# are legible on light and dark backgrounds.
_POSITIVE, _NEGATIVE = '213,94,0', '0,114,178'
_BLOCKS = '▁▂▃▄▅▆▇█'


class Shape:
  """Stands for an array in displays, by its dtype and shape."""

  def __init__(self, array: Any):
    self._text = f'{array.dtype}{list(array.shape)}'

  def __repr__(self) -> str:
    return self._text

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    del subtree_renderer
    from treescope import rendering_parts

    return rendering_parts.build_one_line_tree_node(
        rendering_parts.text(self._text), path
    )


def constructor(
    value: Any, names: Iterable[str], path: str | None, renderer: Any
) -> Any:
  """Returns treescope's rendering of some attributes; arrays as shapes."""
  from treescope import repr_lib

  attributes = {}
  for name in names:
    attribute = getattr(value, name)
    array = isinstance(attribute, np.ndarray)
    attributes[name] = Shape(attribute) if array else attribute
  return repr_lib.render_object_constructor(
      type(value), attributes, path, renderer
  )


def wrapper(
    value: Any, contents: Mapping[str, Any], path: str | None, renderer: Any
) -> Any:
  """Returns treescope's rendering of a mapping."""
  from treescope import repr_lib

  return repr_lib.render_dictionary_wrapper(
      type(value), contents, path, renderer
  )


def fields(title: str, values: Mapping[str, Any]) -> str:
  """Returns a table of names and values."""
  rows = ''.join(
      f'<tr><th style="text-align:left">{html.escape(name)}</th>'
      f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
      for name, value in values.items()
  )
  return f'<table><caption>{html.escape(title)}</caption>{rows}</table>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a table of texts."""
  titles = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
  body = ''.join(
      '<tr>' + ''.join(f'<td>{html.escape(c)}</td>' for c in row) + '</tr>'
      for row in rows
  )
  return f'<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def shade(value: float, largest: float) -> str:
  """Returns the CSS of a background whose opacity shows the value."""
  share = min(abs(value) / largest, 1.0) if largest else 0.0
  colour = _NEGATIVE if value < 0 else _POSITIVE
  return f'background:rgba({colour},{0.8 * share:.2f})'


def heat(pieces: Sequence[str], values: Iterable[float], largest: float) -> str:
  """Returns tokens whose backgrounds show values, with the values on hover.

  All tokens are in a single line, with arrows for the ends of lines.
  """
  spans = []
  for piece, value in zip(pieces, values, strict=True):
    text = html.escape(piece).replace('\n', '↵')
    if value:
      style = shade(value, largest)
      text = f'<span style="{style}" title="{value:+.2f}">{text}</span>'
    spans.append(text)
  return f'<code style="white-space:pre-wrap">{"".join(spans)}</code>'


def preformatted(lines: Iterable[str]) -> str:
  """Returns lines of text, which wrap."""
  text = html.escape('\n'.join(lines))
  return f'<pre style="white-space:pre-wrap">{text}</pre>'


def histogram(counts: Int[np.ndarray, ' bins']) -> str:
  """Returns a line of blocks, as high as the counts on a log scale."""
  heights = _heights(counts)
  return ''.join(
      _BLOCKS[round(h * (len(_BLOCKS) - 1))] if h else ' ' for h in heights
  )


def histogram_svg(
    counts: Int[np.ndarray, ' bins'], largest: float, threshold: float | None
) -> str:
  """Returns bars on a log scale from 0 to `largest`, and the threshold."""
  width, height = 320, 60
  step = width / len(counts)
  bars = ''.join(
      f'<rect x="{i * step:.1f}" y="{height * (1 - h):.1f}" width="{step:.1f}"'
      f' height="{height * h:.1f}" fill="rgb({_NEGATIVE})"><title>{count}'
      '</title></rect>'
      for i, (h, count) in enumerate(zip(_heights(counts), counts, strict=True))
  )
  line = ''
  if threshold is not None and 0 < threshold < largest:
    x = width * threshold / largest
    line = (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"'
        f' stroke="rgb({_POSITIVE})"><title>threshold {threshold:.2f}</title>'
        '</line>'
    )
  return (
      f'<svg width="{width}" height="{height}" role="img"'
      f' aria-label="values from 0 to {largest:.2f}">{bars}{line}</svg>'
  )


def _heights(counts: Int[np.ndarray, ' bins']) -> Float[np.ndarray, ' bins']:
  logs = np.log1p(counts)
  return logs / (logs.max() or 1)
