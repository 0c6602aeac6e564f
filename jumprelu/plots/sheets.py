"""Figures with panels: their axes and legend, and their PNG, PDF and CSV."""

from collections.abc import Mapping, Sequence
import csv
import os
import pathlib
import textwrap
from typing import Any

import numpy as np

from jumprelu import extras
from jumprelu.plots import plot_style

Row = Mapping[str, Any]


def panels(
    rows: int, columns: int, *, size: tuple[float, float] = (3.1, 2.9), **more
) -> tuple[Any, Any]:
  """Returns a figure and its axes, [rows, columns], in the project's style."""
  with extras.imports():
    from matplotlib import figure

  with plot_style.context():
    fig = figure.Figure(
        figsize=(size[0] * columns + 0.4, size[1] * rows + 0.4),
        layout='constrained',
    )
    axes = fig.subplots(rows, columns, squeeze=False, **more)
  return fig, axes


def heading(fig: Any, text: str) -> None:
  """Writes a text above the panels, in lines as wide as the figure."""
  fig.suptitle(
      textwrap.fill(text, int(15 * fig.get_figwidth()), break_on_hyphens=False),
      x=0.012,
      ha='left',
      fontsize=9,
      color=plot_style.FAINT,
  )


def legend_below(fig: Any, *, grow: bool = False) -> None:
  """Draws one legend for the curves of all panels, below them.

  Args:
    fig: The figure.
    grow: Whether to make the figure higher by the height of the legend, so that
      long legends do not shrink the panels.
  """
  handles = {}
  for axis in fig.axes:
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
      handles.setdefault(label, handle)
  # In inches, including the handle and its padding.
  widest = 0.065 * max(map(len, handles), default=0) + 0.55
  columns = max(1, min(len(handles), int(fig.get_figwidth() / widest)))
  rows = -(-len(handles) // columns)
  if grow:
    fig.set_figheight(fig.get_figheight() + 0.19 * rows)
  if handles:
    fig.legend(
        handles.values(),
        handles.keys(),
        loc='outside lower center',
        # As few columns as the rows need, so that the last one is not short.
        ncols=-(-len(handles) // rows),
        frameon=False,
        fontsize=8.5,
    )


def save(fig: Any, path: str | os.PathLike[str]) -> None:
  """Writes PATH.png and PATH.pdf."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with plot_style.context():
    fig.savefig(f'{path}.png', dpi=130, facecolor='white')
    # Without a date, so that the same numbers produce the same file.
    fig.savefig(f'{path}.pdf', metadata={'CreationDate': None})


def write_csv(
    rows: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    digits: int | None = None,
) -> None:
  """Writes rows atomically; None becomes an empty cell.

  Args:
    rows: The rows. Columns are in the order in which they first occur.
    path: The file.
    digits: The number of significant digits of floats; if None, all digits that
      identify the float.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  names = list(dict.fromkeys(name for row in rows for name in row))
  draft = path.with_suffix('.tmp')
  with draft.open('w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, names, lineterminator='\n')
    writer.writeheader()
    for row in rows:
      writer.writerow({k: _cell(value, digits) for k, value in row.items()})
  draft.replace(path)


def _cell(value: Any, digits: int | None) -> str:
  if value is None:
    return ''
  if isinstance(value, float | np.floating):
    return f'{value:.{digits}g}' if digits else repr(float(value))
  return str(value)
