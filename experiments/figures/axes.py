"""Scales, limits and labels of the y axes of a row of panels.

A row is styled after its curves are drawn. Panels of one metric share scale and
limits, so that they can be compared. A row is logarithmic if all its metrics
are quantities whose ratios matter, and otherwise linear. Labels name the scale
if it is logarithmic.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.figures import drawing
from jumprelu import extras
from jumprelu.plots import plot_style

# Metrics whose ratios matter.
LOGARITHMIC = frozenset(('l0', 'fvu', 'delta_loss'))
# The least span of an axis, so that noise does not fill it: the ratio of the
# limits of a logarithmic axis, and the share of the largest value of others.
_LEAST_RATIO, _LEAST_SHARE = 3, 0.1
_MARGIN = 0.06
# The least ratio of the largest value to the threshold of an axis that is
# logarithmic above and linear below it; with less the axis is linear.
_DECADES = 30


def style_row(
    axes: Sequence[Any],
    metrics: Sequence[str],
    *,
    labels: Sequence[str] = (),
) -> None:
  """Styles the y axes of a row of drawn panels.

  Args:
    axes: The panels of the row.
    metrics: The metric of each panel, or one metric of all of them.
    labels: The label of each metric; by default those of `drawing.LABELS`.
  """
  names = list(dict.fromkeys(metrics))
  labels = labels or [drawing.LABELS[name] for name in names]
  of_axes = metrics if len(metrics) == len(axes) else [names[0]] * len(axes)
  logarithmic = all(name in LOGARITHMIC for name in names)
  for name, label in zip(names, labels, strict=True):
    group = [
        a for a, metric in zip(axes, of_axes, strict=True) if metric == name
    ]
    low, high = _extent(group)
    style = _logarithmic if logarithmic else _linear
    if name in drawing.SHARES:
      style = _percent
    note = style(group, low, high)
    group[0].set_ylabel(label + note)
    if name.removesuffix('_difference') in drawing.SHARES:
      _label_percent(group)


def _extent(axes: Sequence[Any]) -> tuple[float, float]:
  """Returns the least and the largest value drawn, with error bars."""
  limits = np.array([axis.dataLim.intervaly for axis in axes])
  limits = limits[np.isfinite(limits).all(1)]
  if not len(limits):
    return 0.0, 1.0
  return float(limits.min()), float(limits.max())


def _percent(axes: Sequence[Any], low: float, high: float) -> str:
  """Draws shares in percent, from 0."""
  del low
  for axis in axes:
    axis.set_ylim(0, max(high, _LEAST_SHARE) * (1 + _MARGIN))
    # Marks at 0 are drawn as a whole, although the axis ends there.
    for line in axis.lines:
      line.set_clip_on(False)
  return ''


def _label_percent(axes: Sequence[Any]) -> None:
  with extras.imports():
    from matplotlib import ticker

  for axis in axes:
    axis.yaxis.set_major_formatter(
        ticker.FuncFormatter(lambda value, _: f'{100 * value:.6g} %')
    )


def _linear(axes: Sequence[Any], low: float, high: float) -> str:
  span = max(high - low, _LEAST_SHARE * max(abs(low), abs(high))) or 0.1
  middle, half = (low + high) / 2, span * (0.5 + _MARGIN)
  for axis in axes:
    axis.set_ylim(middle - half, middle + half)
  return ''


def _logarithmic(axes: Sequence[Any], low: float, high: float) -> str:
  if low <= 0:
    return _logarithmic_around_0(axes, low, high)
  wider = max(1.0, _LEAST_RATIO * low / high) ** 0.5
  margin = wider * (high / low) ** _MARGIN
  for axis in axes:
    plot_style.log_axis(axis, 'y')
    axis.set_ylim(low / margin, high * margin)
  return '\n(log scale)'


def _logarithmic_around_0(axes: Sequence[Any], low: float, high: float) -> str:
  """Draws values below a threshold linearly, because some are not positive."""
  with extras.imports():
    from matplotlib import ticker

  size = max(-low, abs(high) / 1000)
  threshold = 10 ** np.floor(np.log10(size))
  if high < _DECADES * threshold:
    return _linear(axes, low, high)
  decades = 10 ** np.arange(
      np.log10(threshold), np.ceil(np.log10(max(abs(high), threshold))) + 1
  )
  negative = -decades[decades <= size * 1.01]
  for axis in axes:
    axis.set_yscale('symlog', linthresh=threshold)
    axis.yaxis.set_major_locator(
        ticker.FixedLocator(sorted((*negative, 0, *decades)))
    )
    axis.yaxis.set_major_formatter(
        ticker.FuncFormatter(lambda value, _: f'{value:g}')
    )
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.set_ylim(min(1.2 * low, -threshold / 5), 1.3 * high)
  return f'\n(log scale, linear below {threshold:g})'
