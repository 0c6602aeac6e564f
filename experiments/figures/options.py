"""Figures that compare options: one suite and one curve per option."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing, panels
from jumprelu.plots import plot_style, sheets

_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu',
    'delta_loss', 'delta_loss_stderr', 'loss_recovered', 'gamma', 'dead_share',
)  # fmt: skip


def table(results: Mapping[str, Any]) -> list[drawing.Row]:
  """Returns one row per member, with its suite's name as its `option`."""
  return drawing.of_members(results, *_COLUMNS, origin='option')


def figure(
    rows: Sequence[drawing.Row],
    labels: Mapping[str, str],
    metrics: Sequence[str],
) -> Any:
  """Returns a figure with one column per metric, against L0.

  The upper row shows the metrics. The lower row shows the difference from the
  first option at an equal L0, because curves nearly coincide.

  Args:
    rows: The rows of `table`.
    labels: The curves' labels by option, in the order of their colours.
    metrics: Columns, each with a label in `drawing.LABELS`.
  """
  fig, axes = sheets.panels(2, len(metrics), size=(3.4, 2.7), sharex=True)
  first, name = next(iter(labels.items()))
  rows = [*rows]
  for metric in metrics:
    rows = with_differences(rows, metric, first)
  for column, metric in zip(axes.T, metrics, strict=True):
    upper, lower = column
    style = {'column': 'option', 'labels': labels}
    panels.curves(upper, rows, metric, is_nested=True, **style)
    panels.curves(lower, rows, _difference(metric), **style)
    for axis in column:
      plot_style.log_axis(axis, 'x')
    column[1].set_xlabel(drawing.LABELS['l0'])
  axes_lib.style_row(axes[0], metrics)
  axes_lib.style_row(
      axes[1],
      [_difference(metric) for metric in metrics],
      labels=[f'Difference in\n{drawing.LABELS[m]}' for m in metrics],
  )
  sheets.legend_below(fig)
  note = f'lower row: differences from "{name}" at equal L0'
  captions.write(fig, rows, metrics, note=note)
  return fig


def _difference(metric: str) -> str:
  return f'{metric}_difference'


def _is_measured(row: drawing.Row, metric: str) -> bool:
  """Returns whether a row has the metric and a positive L0."""
  return bool(row['l0']) and row[metric] is not None


def with_differences(
    rows: Sequence[drawing.Row], metric: str, first: str
) -> list[drawing.Row]:
  """Returns rows with the difference of a metric from an option at equal L0.

  The option's metric is interpolated, linearly in the logarithm of L0, between
  the members with the row's seed. Rows outside their range have no difference,
  nor have rows without the metric or without active latents.
  """
  new = []
  for row in rows:
    seed_rows = drawing.where(rows, option=first, seed=row['seed'])
    points = sorted(
        (r['l0'], r[metric]) for r in seed_rows if _is_measured(r, metric)
    )
    difference = None
    inside = points and _is_measured(row, metric)
    if inside and points[0][0] <= row['l0'] <= points[-1][0]:
      x, y = np.array(points).T
      difference = row[metric] - np.interp(np.log(row['l0']), np.log(x), y)
    new.append(row | {_difference(metric): difference})
  return new
