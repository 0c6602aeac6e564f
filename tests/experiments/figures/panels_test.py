"""Legends fit in their figure, and panels draw the labelled curves only."""

import io

import pytest

from experiments.figures import panels
from jumprelu.plots import sheets

_ROWS = [
    {'text': text, 'l0': l0, 'fvu': 1 / l0, 'sparsity_coefficient': l0}
    for text in 'abcdef'
    for l0 in (10.0, 20.0)
]


@pytest.mark.parametrize('length', [1, 12, 26])
@pytest.mark.parametrize('columns', [1, 3])
def test_a_legend_is_no_wider_than_its_figure(columns, length):
  fig, axes = sheets.panels(1, columns)
  labels = {text: text * length for text in 'abcdef'}
  panels.curves(axes[0, 0], _ROWS, 'fvu', column='text', labels=labels)
  sheets.legend_below(fig)
  fig.savefig(io.BytesIO(), format='png')
  (legend,) = fig.legends
  box = legend.get_window_extent()
  assert 0 <= box.x0 and box.x1 <= fig.bbox.x1
  assert [text.get_text() for text in legend.get_texts()] == [*labels.values()]


def test_a_style_applies_to_its_curve_only():
  _, axes = sheets.panels(1, 1)
  panels.curves(
      axes[0, 0],
      _ROWS,
      'fvu',
      column='text',
      labels={'b': 'B', 'd': 'D', 'x': 'absent'},
      styles={'d': {'linestyle': ':'}},
  )
  first, second = axes[0, 0].containers
  assert [first.get_label(), second.get_label()] == ['B', 'D']
  lines = [curve.lines[0].get_linestyle() for curve in (first, second)]
  assert lines == ['-', ':']
