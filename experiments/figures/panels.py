"""Panels that several figures share: a column per site, a curve per variant."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import types
from typing import Any

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing
from jumprelu.plots import plot_style, sheets

# Draws a panel from its axis, its rows and its metric.
Draw = Callable[[Any, list[drawing.Row], str], None]


def by_site(
    rows: Sequence[drawing.Row],
    metrics: Sequence[str],
    draw: Draw,
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
  present = drawing.present(rows, 'site', sites)
  titles = {site: plot_style.SITES[site] for site in present}
  return grid(rows, metrics, draw, column='site', titles=titles, x=x, bars=bars)


def grid(
    rows: Sequence[drawing.Row],
    metrics: Sequence[str],
    draw: Draw,
    *,
    column: str,
    titles: Mapping[Any, str],
    x: str = 'l0',
    bars: str = '',
    size: tuple[float, float] = (3.1, 2.9),
) -> Any:
  """Returns a figure with a panel for each value of a column and each metric.

  Args:
    rows: The rows to draw.
    metrics: The metrics, one row of panels each.
    draw: Draws a panel, from its axis, its rows and its metric.
    column: The column whose values are the columns of panels.
    titles: The titles of the columns of panels, by value and in order.
    x: The column along x, on a logarithmic axis.
    bars: The meaning of error bars, as for `captions.write`.
    size: The size of a panel in inches.
  """
  fig, axes = sheets.panels(
      len(metrics), len(titles), sharex=True, sharey='row', size=size
  )
  for panels, (value, title) in zip(axes.T, titles.items(), strict=True):
    chosen = drawing.where(rows, **{column: value})
    panels[0].set_title(title)
    for axis, metric in zip(panels, metrics, strict=True):
      draw(axis, chosen, metric)
      plot_style.log_axis(axis, 'x')
    panels[-1].set_xlabel(drawing.LABELS[x])
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
