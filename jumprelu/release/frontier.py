"""A plot of the sparsity-fidelity frontier, drawn from rows of results.

The plot has a column of two panels for each site. The upper panel shows the
fraction of variance unexplained against L0. The lower panel shows, also against
L0, the increase of the language model's loss when the reconstruction replaces
the activation. Gemma Scope compares SAEs by these curves (arXiv:2408.05147,
figures 4 and 6). Lower and further left is better.
"""

from collections.abc import Mapping, Sequence
import os
import textwrap
from typing import Any

import numpy as np

from jumprelu import errors, extras
from jumprelu.plots import plot_style
from jumprelu.release import layout

_LABELS = {
    'fvu': 'FVU: variance unexplained',
    'delta_loss': 'Delta loss, nats per token',
}
# Names in the heading; other variants have their own names there.
_VARIANTS = {'jumprelu': 'JumpReLU'}
Row = Mapping[str, Any]


def plot_frontier(rows: Sequence[Row], out: str | os.PathLike):
  """Draws the rows of results whose L0 is positive, and writes the plot.

  Args:
    rows: Rows of results. Rows of one site with equal variant and width form a
      curve.
    out: The file, whose suffix determines its format.

  Raises:
    DataError: no row has a positive L0.
  """
  rows = [row for row in rows if (row.get('l0') or 0) > 0]
  sites = [
      site for site in plot_style.SITES if any(r['site'] == site for r in rows)
  ]
  if not sites:
    raise errors.DataError(
        f'{out}: nothing to draw, because no row of results has a positive L0'
    )
  with extras.imports():
    from matplotlib import figure

  series = sorted({_series_of(row) for row in rows}, key=lambda s: s[::-1])
  width = max(2.75 * len(sites) + 0.8, 5.0)
  with plot_style.context():
    fig = figure.Figure(figsize=(width, 6.0), layout='constrained')
    axes = fig.subplots(2, len(sites), squeeze=False, sharey='row')
    for metric, row_axes in zip(_LABELS, axes, strict=True):
      for site, axis in zip(sites, row_axes, strict=True):
        _draw_panel(axis, rows, metric, site=site, series=series)
      _style_y(row_axes[0], rows, metric)
      row_axes[0].set_ylabel(_LABELS[metric])
    for site, top, bottom in zip(sites, *axes, strict=True):
      top.set_title(
          plot_style.SITES[site], fontweight='bold', loc='left', pad=8
      )
      bottom.set_xlabel('L0: active latents per token')
      if len(series) > 1:
        _label_series(top, [r for r in rows if r['site'] == site], series)
    fig.suptitle(
        textwrap.fill(_heading(rows), int(15 * width)),
        x=0.012,
        ha='left',
        fontsize=9,
        color=plot_style.FAINT,
    )
    fig.savefig(out, dpi=160, facecolor='white')


def _draw_panel(
    axis,
    rows: Sequence[Row],
    metric: str,
    *,
    site: str,
    series: Sequence[tuple[str, int]],
):
  """Draws and labels all curves of one metric at one site."""
  rows = [row for row in rows if row['site'] == site]
  if metric == 'fvu':
    _draw_pca(axis, rows)
  for i, name in enumerate(series):
    series_rows = [row for row in rows if _series_of(row) == name]
    _draw_series(axis, series_rows, metric, index=i)
  if len(series) == 1:
    _label_points(axis, rows, metric)
  _style_x(axis, rows)


def _series_of(row: Row) -> tuple[str, int]:
  """Returns the variant and width, which identify a curve within a panel."""
  return row['variant'], row['width']


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


def _draw_series(axis, rows: Sequence[Row], metric: str, *, index: int):
  l0, value, stderr = _points(rows, metric)
  if not len(l0):
    return
  axis.errorbar(
      l0,
      value,
      yerr=plot_style.STDERRS * stderr if stderr.any() else None,
      **plot_style.mark(index),
      markersize=5.5,
      markeredgecolor='white',
      markeredgewidth=0.6,
      linewidth=1.6,
      elinewidth=1.1,
      capsize=2.5,
  )


def _draw_pca(axis, rows: Sequence[Row]):
  l0, value, _ = _points(rows, 'pca_fvu')
  if not len(l0):
    return
  axis.plot(
      l0,
      value,
      color=plot_style.FAINT,
      linestyle=(0, (4, 3)),
      linewidth=1.3,
      marker='.',
      markersize=4,
  )
  axis.annotate(
      'PCA of rank L0',
      (l0[0], value[0]),
      xytext=(2, 6),
      textcoords='offset points',
      color=plot_style.FAINT,
      fontsize=8,
  )


def _label_points(axis, rows: Sequence[Row], metric: str):
  """Labels each point with its sparsity coefficient or target L0."""
  for row in rows:
    if row.get(metric) is None:
      continue
    axis.annotate(
        _request(row),
        (row['l0'], row[metric]),
        xytext=(-5, -4),
        textcoords='offset points',
        ha='right',
        va='top',
        fontsize=7.5,
        color=plot_style.FAINT,
    )


def _request(row: Row) -> str:
  """Returns a row's target L0, or else its sparsity coefficient, as text."""
  if row.get('target_l0'):
    return f'L0 → {row["target_l0"]:g}'
  mantissa, exponent = f'{row["sparsity_coefficient"]:.3e}'.split('e')
  mantissa = f'{float(mantissa):g}'
  power = f'10^{{{int(exponent)}}}'
  number = power if mantissa == '1' else rf'{mantissa}\cdot {power}'
  return rf'$\lambda = {number}$'


def _label_series(axis, rows: Sequence[Row], series: Sequence[tuple[str, int]]):
  """Labels the end of each curve with its width and variant, in its colour."""
  ends = []
  for i, (variant, width) in enumerate(series):
    series_rows = [row for row in rows if _series_of(row) == (variant, width)]
    l0, value, _ = _points(series_rows, 'fvu')
    if len(l0):
      name = layout.width_name(width)
      name += '' if variant == 'jumprelu' else f' {variant}'
      ends.append((l0[-1], value[-1], name, plot_style.mark(i)['color']))
  points_per_pixel = 72 / axis.figure.dpi
  lowest = -np.inf
  for l0, value, name, colour in sorted(ends, key=lambda end: end[1]):
    # A label is moved up until it is a line above the previous one, because
    # curves may end close together.
    height = axis.transData.transform((l0, value))[1] * points_per_pixel
    lowest = max(height, lowest + 11)
    axis.annotate(
        name,
        (l0, value),
        xytext=(8, lowest - height),
        textcoords='offset points',
        va='center',
        fontsize=9,
        fontweight='bold',
        color=colour,
    )


def _style_x(axis, rows: Sequence[Row]):
  l0 = [row['l0'] for row in rows]
  plot_style.log_axis(axis, 'x')
  # The left margin has room for labels. The axis spans at least a factor of 3.
  low, high = min(l0) / 1.9, max(l0) * 1.4
  axis.set_xlim(low, max(high, low * 3))


def _style_y(axis, rows: Sequence[Row], metric: str):
  values = [row[metric] for row in rows if row.get(metric) is not None]
  if metric == 'fvu':
    values += [r['pca_fvu'] for r in rows if r.get('pca_fvu') is not None]
  if not values:
    return
  if min(values) <= 0:
    axis.axhline(0, color=plot_style.FAINT, linewidth=0.8)
    return
  plot_style.log_axis(axis, 'y')
  axis.set_ylim(min(values) / 1.5, max(values) * 1.45)


def _heading(rows: Sequence[Row]) -> str:
  """Returns the text above the panels: model, layers, SAEs and tokens."""
  first = rows[0]
  layers = sorted({row['layer'] for row in rows})
  variants = sorted({row['variant'] for row in rows})
  parts = [
      f'{first["model"]}, layer{"s" * (len(layers) > 1)} '
      + ', '.join(map(str, layers)),
      f'{len(rows)} {"/".join(str(_VARIANTS.get(v, v)) for v in variants)}'
      f' SAE{"s" * (len(rows) > 1)}',
  ]
  if first.get('tokens_evaluated'):
    parts.append(f'{first["tokens_evaluated"]:,} held-out tokens')
  if any(row.get('delta_loss_stderr') for row in rows):
    parts.append(f'bars: ± {plot_style.STDERRS} standard errors')
  parts += dict.fromkeys(r['unfinished'] for r in rows if r.get('unfinished'))
  return ' · '.join(parts) + '. Lower and further left is better.'
