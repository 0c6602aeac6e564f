"""Panels that several figures share: a column per site, a curve per variant."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import types
from typing import Any

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing
from jumprelu.plots import plot_style, sheets


def by_site(
    rows: Sequence[drawing.Row],
    metrics: Sequence[str],
    draw: Callable[[Any, list[drawing.Row], str], None],
    *,
    x: str = 'l0',
    sites: Iterable[str] = plot_style.SITES,
    bars: str = '',
) -> Any:
  """Returns a figure with one column per site and one row per metric.

  Args:
    rows: The rows to draw, with a column `site`.
    metrics: Columns, each with a label in `drawing.LABELS`.
    draw: Draws a panel, from its axis, the rows of its site and its metric.
    x: The column along x, on a logarithmic axis.
    sites: Sites in order; those without rows are omitted.
    bars: The meaning of error bars, as for `captions.write`.
  """
  columns = drawing.present(rows, 'site', sites)
  fig, axes = sheets.panels(
      len(metrics), len(columns), sharex=True, sharey='row'
  )
  for column, site in zip(axes.T, columns, strict=True):
    site_rows = drawing.where(rows, site=site)
    column[0].set_title(plot_style.SITES[site])
    for axis, metric in zip(column, metrics, strict=True):
      draw(axis, site_rows, metric)
      plot_style.log_axis(axis, 'x')
    column[-1].set_xlabel(drawing.LABELS[x])
  for row_axes, metric in zip(axes, metrics, strict=True):
    axes_lib.style_row(row_axes, (metric,))
  sheets.legend_below(fig)
  captions.write(fig, rows, metrics, bars=bars)
  return fig


def variant_curves(axis: Any, rows: Sequence[drawing.Row], metric: str) -> None:
  """Draws one metric against L0, one curve per variant."""
  curves(axis, rows, metric, column='variant', labels=drawing.VARIANTS)


def curves(
    axis: Any,
    rows: Sequence[drawing.Row],
    metric: str,
    *,
    column: str,
    labels: Mapping[Any, str],
    styles: Mapping[Any, Mapping[str, Any]] = types.MappingProxyType({}),
    is_nested: bool = False,
) -> None:
  """Draws one metric against L0, one curve per value of a column.

  Args:
    axis: The panel.
    rows: Members' rows; those that differ only in their seed are averaged.
    metric: The column on the y axis.
    column: The column that distinguishes curves.
    labels: The curves' labels by value, in the order of their colours.
    styles: Style changes by value, as for `Axes.errorbar`.
    is_nested: Whether curves that coincide remain visible.
  """
  for i, (value, label) in enumerate(labels.items()):
    points = drawing.over_seeds(
        drawing.where(rows, **{column: value}),
        'l0',
        metric,
        by=('sparsity_coefficient', 'target_l0'),
    )
    style = drawing.nested(i, len(labels)) if is_nested else {}
    style = {**style, **styles.get(value, {})}
    drawing.curve(axis, points, i, label, metric=metric, **style)


def mark_released(
    axis: Any, rows: Iterable[drawing.Row], color: Any = plot_style.FAINT
) -> None:
  """Marks the L0s of published SAEs (rows of `reference`) on the x axis."""
  l0s = [row['l0'] for row in drawing.where(rows, variant=drawing.RELEASED)]
  if l0s:
    axis.plot(
        l0s,
        [0.025] * len(l0s),
        transform=axis.get_xaxis_transform(),
        color=color,
        marker='|',
        markersize=9,
        linestyle='none',
        label='_released',
    )
