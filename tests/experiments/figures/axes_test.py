"""The y axes of a row: scale by metric and values, limits, error bars."""

import pytest

from experiments.figures import axes as axes_lib
from experiments.figures import drawing
from jumprelu.plots import sheets


def _row(*values, metric='fvu', stderr=0.0):
  """Draws a panel per value with a point at it and one at twice the value."""
  _, axes = sheets.panels(1, len(values))
  for axis, value in zip(axes[0], values, strict=True):
    points = [
        drawing.Point(x, y, 0.0, stderr)
        for x, y in ((1, value), (2, 2 * value))
    ]
    drawing.curve(axis, points, 0, 'Curve', metric=metric)
  axes_lib.style_row(axes[0], (metric,))
  return axes[0]


def test_a_row_has_the_limits_of_all_its_values():
  first, second = _row(0.1, 0.001)
  assert first.get_yscale() == second.get_yscale() == 'log'
  assert first.get_ylim() == second.get_ylim()
  low, high = first.get_ylim()
  assert low < 0.001 and high > 0.2
  assert first.get_ylabel() == 'FVU\n(log scale)'


def test_a_row_with_a_value_below_0_is_linear_near_0():
  first, second = _row(0.1, -0.002, metric='delta_loss')
  assert first.get_yscale() == second.get_yscale() == 'symlog'
  assert first.get_ylabel().endswith('(log scale, linear below 0.001)')
  low, high = first.get_ylim()
  assert low < -0.004 and high > 0.2


def test_an_error_bar_that_reaches_0_is_within_the_axis():
  (axis,) = _row(0.1, metric='delta_loss', stderr=0.051)
  low, _ = axis.get_ylim()
  assert low < 0.1 - 2 * 0.051 < 0


def test_a_row_of_small_values_around_0_is_linear():
  (axis,) = _row(-0.01, metric='delta_loss')
  assert axis.get_yscale() == 'linear'
  assert axis.get_ylabel() == drawing.LABELS['delta_loss']


def test_a_row_with_a_metric_of_a_linear_axis_is_linear():
  _, axes = sheets.panels(1, 2)
  for axis in axes[0]:
    axis.plot([1, 2], [0.1, 0.9])
  axes_lib.style_row(axes[0], ('fvu', 'gamma'))
  assert [axis.get_yscale() for axis in axes[0]] == ['linear', 'linear']
  assert axes[0, 1].get_ylabel() == drawing.LABELS['gamma']


@pytest.mark.parametrize('metric', ['gamma', 'fvu'])
def test_noise_does_not_fill_an_axis(metric):
  _, axes = sheets.panels(1, 1)
  axes[0, 0].plot([1, 2], [1.0, 1.002])
  axes_lib.style_row(axes[0], (metric,))
  low, high = axes[0, 0].get_ylim()
  assert high - low >= 0.1 or high / low >= 3
  assert low < 0.96 and high > 1.04


def test_error_bars_of_a_share_end_at_0_and_1():
  _, axes = sheets.panels(1, 1)
  points = [drawing.Point(1, 0.01, 0, 0.02), drawing.Point(2, 0.99, 0, 0.02)]
  drawing.curve(axes[0, 0], points, 0, 'Curve', metric='dead_share')
  (bars,) = axes[0, 0].collections
  ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
  assert ends == [[0.0, pytest.approx(0.05)], [pytest.approx(0.95), 1.0]]
