"""Figures that compare options: one suite and one curve per option."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.figures import drawing, panels
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
  """Returns a figure with one panel per metric, against L0.

  Args:
    rows: The rows of `table`.
    labels: The curves' labels by option, in the order of their colours.
    metrics: Columns, each with a label in `drawing.LABELS`.
  """
  fig, axes = sheets.panels(1, len(metrics), size=(3.4, 3.2))
  for axis, metric in zip(axes[0], metrics, strict=True):
    panels.curves(axis, rows, metric, column='option', labels=labels)
    plot_style.log_axis(axis, 'x')
    if metric in ('fvu', 'delta_loss'):
      panels.log_y(axis, rows, metric)
    axis.set(xlabel=drawing.LABELS['l0'], ylabel=drawing.LABELS[metric])
  sheets.legend_below(fig)
  return fig
