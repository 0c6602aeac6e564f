"""Tables of results as text for the terminal."""

from collections.abc import Sequence
import math
from typing import Any


def format_number(value: Any) -> str:
  """Returns a cell's text: 4 significant digits, or '-' for None and NaN."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return '-'
  if isinstance(value, float):
    return f'{value:.4g}'
  return str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns aligned columns: text on the left, everything else on the right."""
  cells = [[format_number(cell) for cell in row] for row in rows]
  widths = [
      max(len(line[i]) for line in [list(header), *cells])
      for i in range(len(header))
  ]
  is_text = [
      bool(rows) and all(isinstance(row[i], str) for row in rows)
      for i in range(len(header))
  ]

  def line(row: Sequence[str]) -> str:
    return '  '.join(
        cell.ljust(width) if left else cell.rjust(width)
        for cell, width, left in zip(row, widths, is_text, strict=True)
    ).rstrip()

  return '\n'.join([line(header), *map(line, cells)])
