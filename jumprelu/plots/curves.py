"""Plots of training metrics: a panel per site, a line per member.

Lines are drawn from a table with one row per member and segment
(`training/metrics_file.py`). Lines of one sparsity coefficient or target L0 share a
colour. Lines of different runs, widths, variants and seeds differ in their dash
pattern, or, if there are more than four, in their markers too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jumprelu.files import wording
from jumprelu.plots import labels, plot_style, sheets

Row = Mapping[str, Any]

# Without a plain dotted line, because targets are dotted.
_DASHES = ('-', (0, (5, 1.5)), (0, (5, 1.2, 1, 1.2)), (0, (6, 1, 1, 1, 1, 1)))
# The largest number of panels beside each other.
_COLUMNS = 4
# Columns that identify a line within a panel, apart from its sparsity.
_SERIES = ('run', 'width', 'variant', 'seed')
_SPARSITY = ('target_l0', 'sparsity_coefficient')
# The columns of the x axes and their labels.
_X = {
    'tokens': ('tokens_trained', 'Tokens trained on'),
    'steps': ('step', 'Steps'),
}


class _Metric(NamedTuple):
  """The label of a metric's axis, and whether the axis is logarithmic."""

  label: str
  logarithmic: bool = True


_METRICS = {
    'loss': _Metric('Training loss'),
    'l0': _Metric('L0: active latents per token'),
    'fvu': _Metric('FVU: variance unexplained'),
    'dead_share': _Metric('Share of dead latents', logarithmic=False),
    'threshold': _Metric('Mean threshold, in scaled activations'),
    'learning_rate': _Metric('Learning rate', logarithmic=False),
}


def drawable(rows: Sequence[Row]) -> list[str]:
  """Returns the columns that have a plot, in order."""
  return [n for n in _METRICS if any(r.get(n) is not None for r in rows)]


def plot(rows: Sequence[Row], metric: str, *, over: str = 'tokens') -> Any:
  """Returns a figure of one metric.

  Args:
    rows: The table, with the steps of each member in order.
    metric: A column of `drawable(rows)`.
    over: The x axis: `tokens` or `steps`.
  """
  every = rows
  if metric == 'learning_rate':
    rows = _distinct_rates(rows)
  lines = _lines(rows)
  styles = _styles(lines, has_requests=metric != 'learning_rate')
  panels = _panels(lines, metric)
  count = len(panels)
  columns = min(count, _COLUMNS)
  fig, axes = sheets.panels(
      -(-count // columns),
      columns,
      size=(max(3.1, 4.6 / columns), 2.9),
      sharey=True,
  )
  with plot_style.context():
    for axis in axes.flat[count:]:
      axis.set_axis_off()
    for axis, (title, group) in zip(axes.flat, panels.items(), strict=False):
      _draw(axis, {k: lines[k] for k in group}, metric, over, styles=styles)
      axis.set_title(title, fontweight='bold', loc='left')
      axis.set_xlabel(_X[over][1])
    _style_y(axes[0, 0], rows, metric)
    for axis in axes[:, 0]:
      axis.set_ylabel(_label(metric, axis.get_yscale() == 'log'))
    sheets.legend_below(fig, grow=True)
    sheets.heading(fig, _heading(every))
  return fig


_Key = tuple[Any, ...]
_Lines = dict[_Key, list[Row]]


def _lines(rows: Sequence[Row]) -> _Lines:
  """Returns the rows of each line, by the columns that identify it."""
  names = ('model', 'layer', 'site', *_SERIES, *_SPARSITY)
  lines: _Lines = {}
  for row in rows:
    lines.setdefault(tuple(row[name] for name in names), []).append(row)
  return lines


def _distinct_rates(rows: Sequence[Row]) -> list[Row]:
  """Returns the rows of the first member of each learning rate in each run."""
  seen, kept = set(), []
  for line in _lines(rows).values():
    rates = line[0]['run'], tuple(row['learning_rate'] for row in line)
    if rates not in seen:
      seen.add(rates)
      kept += line
  return kept


def _panels(lines: _Lines, metric: str) -> dict[str, list[_Key]]:
  """Returns the lines of each panel by its title, in the order of sites."""
  first = [line[0] for line in lines.values()]
  if metric == 'learning_rate':
    return {'Schedule': list(lines)}
  extra = labels.differing(first, ('model', 'layer'))
  order = list(plot_style.SITES)
  panels: dict[str, list[_Key]] = {}
  for key, line in sorted(
      lines.items(),
      key=lambda item: (*item[0][:2], order.index(item[1][0]['site'])),
  ):
    row = line[0]
    title = plot_style.SITES[row['site']]
    if extra:
      title += ', ' + labels.joined(row, extra)
    panels.setdefault(title, []).append(key)
  return panels


def _styles(lines: _Lines, *, has_requests: bool) -> dict[_Key, dict[str, Any]]:
  """Returns the colour, dashes, marker and label of each line.

  Args:
    lines: The rows of each line.
    has_requests: Whether labels may contain the coefficient or target L0.
  """
  first = [line[0] for line in lines.values()]
  named = labels.differing(first, _SERIES)
  settings = sorted({tuple(row[n] or 0 for n in _SPARSITY) for row in first})
  series = list(dict.fromkeys(tuple(r[n] for n in _SERIES) for r in first))
  # Without several sparsities in a series, colours distinguish the series.
  curves = len({tuple(r[n] for n in (*_SERIES, *_SPARSITY)) for r in first})
  styles = {}
  for key, line in lines.items():
    row = line[0]
    setting = settings.index(tuple(row[n] or 0 for n in _SPARSITY))
    number = series.index(tuple(row[n] for n in _SERIES))
    colour = plot_style.mark(number)['color']
    if curves > len(series):
      colour = plot_style.shade(setting, len(settings))
    marker = number // len(_DASHES)
    name = labels.joined(row, named)
    if has_requests and (len(settings) > 1 or not named):
      name = ' · '.join(filter(None, (name, labels.request(row))))
    styles[key] = {
        'color': colour,
        'linestyle': _DASHES[number % len(_DASHES)],
        'marker': plot_style.mark(marker - 1)['marker'] if marker else None,
        'label': name,
    }
  return styles


def _draw(
    axis: Any,
    lines: _Lines,
    metric: str,
    over: str,
    *,
    styles: Mapping[_Key, Mapping[str, Any]],
) -> None:
  """Draws the lines of a panel, and the targets of L0."""
  for key, line in lines.items():
    y = np.array([row.get(metric) for row in line], float)
    axis.plot(
        [row[_X[over][0]] for row in line],
        y,
        **styles[key],
        markersize=4,
        markevery=max(1, len(line) // 8),
        linewidth=1.4,
    )
    target = line[0]['target_l0']
    if metric == 'l0' and target:
      color = styles[key]['color']
      axis.axhline(target, color=color, linestyle=':', linewidth=1.1)
  if metric == 'l0' and any(line[0]['target_l0'] for line in lines.values()):
    axis.plot([], [], color=plot_style.FAINT, linestyle=':', label='target L0')
  plot_style.count_axis(axis, 'x')
  axis.set_xlim(left=0)


def _style_y(axis: Any, rows: Sequence[Row], metric: str) -> None:
  """Styles the y axis, which all panels share."""
  y = np.array([row.get(metric) for row in rows], float)
  y = y[np.isfinite(y)]
  if not y.size or min(y) < 0:
    return
  if _kind(metric).logarithmic and min(y) > 0:
    plot_style.log_axis(axis, 'y')
    return
  # Without any positive value, matplotlib would choose an arbitrary height.
  axis.set_ylim(0, None if max(y) > 0 else 0.01)


def _kind(metric: str) -> _Metric:
  return _METRICS.get(metric) or _Metric(metric.replace('_', ' ').capitalize())


def _label(metric: str, logarithmic: bool) -> str:
  return _kind(metric).label + ' (log scale)' * logarithmic


def _heading(rows: Sequence[Row]) -> str:
  """Returns the text above the panels: model, layers, SAEs and tokens."""
  lines = _lines(rows)
  last = [line[-1] for line in lines.values()]
  parts = [
      ', '.join(dict.fromkeys(row['model'] for row in rows)),
      labels.listed('layer', [row['layer'] for row in rows]),
      wording.count(len(lines), 'SAE'),
      f'{labels.between([row["tokens_trained"] for row in last])} tokens',
  ]
  return ' · '.join(parts)
