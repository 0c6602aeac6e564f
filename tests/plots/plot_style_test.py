"""Axes have a few plain tick labels; curves differ in colour and marker."""

from matplotlib import figure
import numpy as np
import pytest

from jumprelu.plots import plot_style


def test_neighbouring_curves_differ_in_colour_and_in_marker():
  marks = [plot_style.mark(i) for i in range(36)]
  for first, second in zip(marks, marks[1:], strict=False):
    assert all(first[key] != second[key] for key in ('color', 'marker'))
  assert len({tuple(mark.values()) for mark in marks}) == 36


def test_large_counts_have_short_ticks():
  fig = figure.Figure()
  axis = fig.subplots()
  axis.plot([0, 4_000_000], [1, 2])
  plot_style.count_axis(axis, 'x')
  fig.canvas.draw()
  texts = [label.get_text() for label in axis.get_xticklabels()]
  assert {'0', '1M', '2M', '3M', '4M'} <= set(texts)


@pytest.mark.parametrize(
    'low, high, ticks',
    [
        (8, 130, [10, 20, 50, 100]),
        (9e-6, 11, [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10]),
        (64.29, 64.51, [64.3, 64.4, 64.5]),
    ],
)
def test_logarithmic_axes_have_a_few_plain_ticks(low, high, ticks):
  axis = figure.Figure().subplots()
  axis.plot([low, high], [1, 2])
  plot_style.log_axis(axis, 'x')
  axis.set_xlim(low, high)
  visible = [t for t in axis.get_xticks() if low <= t <= high]
  np.testing.assert_allclose(visible, ticks)
