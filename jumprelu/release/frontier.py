"""A plot of the sparsity-fidelity frontier, drawn from rows of results.

The plot has a column of two panels for each site. The upper panel shows the
fraction of variance unexplained against L0. The lower panel shows, also against
L0, the increase of the language model's loss when the reconstruction replaces
the activation. Gemma Scope compares SAEs by these curves (arXiv:2408.05147,
figures 4 and 6). Lower and further left is better.
"""

from collections.abc import Collection, Mapping, Sequence
import os
from typing import Any

import numpy as np

from jumprelu import errors
from jumprelu.plots import labels, plot_style, sheets
from jumprelu.release import compare

_LABELS = {
    'fvu': 'FVU: variance unexplained',
    'delta_loss': 'Delta loss, nats per token',
}
# Columns that identify a curve within a panel.
_SERIES = ('run', 'model', 'layer', 'width', 'variant')
Row = Mapping[str, Any]
_Series = tuple[Any, ...]


def plot_frontier(rows: Sequence[Row], out: str | os.PathLike) -> None:
  """Draws the rows of results whose L0 is positive, and writes the plot.

  Args:
    rows: Rows of results, as for `plot`.
    out: The file, whose suffix determines its format.

  Raises:
    DataError: no row has a positive L0.
  """
  if not is_drawable(rows):
    raise errors.DataError(
        f'{out}: nothing to draw, because no row of results has a positive L0'
    )
  with plot_style.context():
    plot(rows).savefig(out, dpi=160, facecolor='white')


def is_drawable(rows: Sequence[Row]) -> bool:
  """Returns whether any row has a positive L0."""
  return any((row.get('l0') or 0) > 0 for row in rows)


def plot(rows: Sequence[Row]) -> Any:
  """Returns the figure of drawable rows.

  Args:
    rows: Rows of results. At each site, rows with equal run, model, layer,
      width and variant form a curve. The column `run` is optional.
  """
  rows = [{'run': '', **row} for row in rows if (row.get('l0') or 0) > 0]
  sites = [
      site for site in plot_style.SITES if any(r['site'] == site for r in rows)
  ]
  runs = list(dict.fromkeys(row['run'] for row in rows))
  series = sorted(
      {_series_of(row) for row in rows}, key=lambda s: (runs.index(s[0]), *s)
  )
  with plot_style.context():
    # The height of a figure without a legend is 6 inches.
    fig, axes = sheets.panels(
        2,
        len(sites),
        size=(max(2.9, 4.6 / len(sites)), 2.8),
        sharey='row',
    )
    for metric, row_axes in zip(_LABELS, axes, strict=True):
      for site, axis in zip(sites, row_axes, strict=True):
        _draw_panel(axis, rows, metric, site=site, series=series)
      _style_y(row_axes, rows, metric)
      scale = ' (log scale)' * (row_axes[0].get_yscale() == 'log')
      row_axes[0].set_ylabel(_LABELS[metric] + scale)
    for site, top, bottom in zip(sites, *axes, strict=True):
      top.set_title(
          plot_style.SITES[site], fontweight='bold', loc='left', pad=8
      )
      bottom.set_xlabel('L0: active latents per token (log scale)')
    sheets.legend_below(fig, grow=True)
    sheets.heading(fig, _heading(rows))
  return fig


def _draw_panel(
    axis,
    rows: Sequence[Row],
    metric: str,
    *,
    site: str,
    series: Sequence[_Series],
) -> None:
  """Draws and labels all curves of one metric at one site."""
  varying = labels.differing(rows, _SERIES)
  rows = [row for row in rows if row['site'] == site]
  if metric == 'fvu':
    _draw_pca(axis, rows, series)
  labelled: set[str] = set()
  for i, name in enumerate(series):
    series_rows = [row for row in rows if _series_of(row) == name]
    if series_rows:
      label = labels.joined(series_rows[0], varying or ['variant'])
      _draw_series(axis, series_rows, metric, index=i, label=label)
      # A coefficient that several curves share is labelled on the first.
      _label_points(axis, series_rows, metric, without=labelled)
      labelled |= {labels.request(row) for row in series_rows}
  _style_x(axis, rows)


def _series_of(row: Row) -> _Series:
  """Returns the values that identify a curve within a panel."""
  return tuple(row[name] for name in _SERIES)


def _points(rows: Sequence[Row], metric: str) -> tuple[np.ndarray, ...]:
  """Returns L0s, values and standard errors of a metric, sorted by L0.

  Rows without the metric are left out; missing standard errors are 0.
  """
  rows = sorted(
      (row for row in rows if row.get(metric) is not None),
      key=lambda row: row['l0'],
  )
  columns = ('l0', metric, f'{metric}_stderr')
  return tuple(
      np.array([row.get(column) or 0 for row in rows], float)
      for column in columns
  )


def _draw_series(
    axis, rows: Sequence[Row], metric: str, *, index: int, label: str
) -> None:
  l0, value, stderr = _points(rows, metric)
  if not len(l0):
    return
  axis.errorbar(
      l0,
      value,
      yerr=plot_style.STDERRS * stderr if stderr.any() else None,
      label=label,
      **plot_style.mark(index),
      markersize=5.5,
      markeredgecolor='white',
      markeredgewidth=0.6,
      linewidth=1.6,
      elinewidth=1.1,
      capsize=2.5,
  )


def _draw_pca(axis, rows: Sequence[Row], series: Sequence[_Series]) -> None:
  """Draws the curve of each run and layer; the first has a name.

  If there are several, each has the colour of the first series of its run.
  """
  origins = list(dict.fromkeys(name[:3] for name in series))
  is_named = False
  for origin in origins:
    color = plot_style.FAINT
    if len(origins) > 1:
      first = next(i for i, s in enumerate(series) if s[:3] == origin)
      color = plot_style.mark(first)['color']
    l0, value, _ = _points(
        [row for row in rows if _series_of(row)[:3] == origin], 'pca_fvu'
    )
    if not len(l0):
      continue
    axis.plot(
        l0,
        value,
        color=color,
        linestyle=(0, (4, 3)),
        linewidth=1.1,
        marker='.',
        markersize=4,
        label='' if is_named else 'PCA of rank L0',
    )
    is_named = True


def _label_points(
    axis, rows: Sequence[Row], metric: str, *, without: Collection[str]
) -> None:
  """Labels each point with its sparsity coefficient or target L0.

  Labels of `without` are omitted.
  """
  for row in rows:
    text = labels.request(row)
    if row.get(metric) is None or text in without:
      continue
    axis.annotate(
        text,
        (row['l0'], row[metric]),
        # Below the curve, which falls, because the curve of the PCA is above
        # it. Inclined, so that labels do not reach the bars and the labels of
        # the points on the left.
        xytext=(-9, -3),
        textcoords='offset points',
        ha='right',
        va='top',
        rotation=40,
        rotation_mode='anchor',
        fontsize=7.5,
        color=plot_style.FAINT,
    )


def _style_x(axis, rows: Sequence[Row]) -> None:
  l0 = [row['l0'] for row in rows]
  plot_style.log_axis(axis, 'x')
  # The axis spans at least a factor of 3.
  low, high = min(l0), max(l0)
  high = max(high, 3 * low)
  # Labels are on the left of their points and a quarter of the axis wide.
  left = max(1.6, (high / low) ** 0.4)
  axis.set_xlim(low / left, 1.3 * high)


def _style_y(axes: np.ndarray, rows: Sequence[Row], metric: str) -> None:
  """Styles the y axis that the panels of a metric share."""
  values = [row[metric] for row in rows if row.get(metric) is not None]
  if metric == 'fvu':
    values += [r['pca_fvu'] for r in rows if r.get('pca_fvu') is not None]
  if not values:
    return
  if min(values) <= 0:
    for axis in axes:
      axis.axhline(0, color=plot_style.FAINT, linewidth=0.8)
    return
  # Ends of error bars that are not positive are outside a logarithmic axis.
  ends = [
      row[metric] - plot_style.STDERRS * (row.get(f'{metric}_stderr') or 0)
      for row in rows
      if row.get(metric) is not None
  ]
  low = min(x for x in (*values, *ends) if x > min(values) / 3)
  plot_style.log_axis(axes[0], 'y')
  high = max(values)
  # Labels are below their points and a quarter of the axis high.
  axes[0].set_ylim(low / max(1.8, (high / low) ** 0.33), high * 1.3)


def _heading(rows: Sequence[Row]) -> str:
  """Returns the text above the panels: model, layers, SAEs and tokens."""
  variants = [
      str(labels.VARIANTS.get(name, name))
      for name in sorted({row['variant'] for row in rows})
  ]
  tokens = [r['tokens_evaluated'] for r in rows if r.get('tokens_evaluated')]
  models = dict.fromkeys(row['model'] for row in rows)
  parts = [
      f'{", ".join(models)}, '
      + labels.listed('layer', [row['layer'] for row in rows]),
      f'{len(rows)} {"/".join(variants)}' f' SAE{"s" * (len(rows) > 1)}',
  ]
  if tokens:
    parts.append(f'{labels.between(tokens)} held-out tokens')
  if any(row.get('delta_loss_stderr') for row in rows):
    parts.append(f'bars: ± {plot_style.STDERRS} standard errors')
  if not compare.has_one_text(rows):
    parts.append('measured on different texts')
  parts += dict.fromkeys(
      ': '.join(filter(None, (row['run'], row['unfinished'])))
      for row in rows
      if row.get('unfinished')
  )
  return ' · '.join(parts) + '. Lower and further left is better.'
