"""Sheets: a CSV with all digits, PNG and PDF with equal bytes, a legend."""

import csv
import io

import numpy as np
import pytest

from jumprelu.plots import sheets


def _read(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def test_a_csv_has_all_digits_of_its_numbers(tmp_path):
  values = [1 / 3, np.float32(0.1), 1e-30, np.float64(2) ** 0.5]
  sheets.write_csv([{'x': v} for v in values], tmp_path / 'folder/x.csv')
  rows = _read(tmp_path / 'folder/x.csv')
  assert [float(row['x']) for row in rows] == [float(v) for v in values]


def test_a_csv_may_have_fewer_digits_and_empty_cells(tmp_path):
  rows = [{'a': 1 / 3, 'b': None}, {'a': 2, 'c': 'x, y'}]
  sheets.write_csv(rows, tmp_path / 'x.csv', digits=3)
  assert _read(tmp_path / 'x.csv') == [
      {'a': '0.333', 'b': '', 'c': ''},
      {'a': '2', 'b': '', 'c': 'x, y'},
  ]
  assert [p.name for p in tmp_path.iterdir()] == ['x.csv']


def _figure():
  fig, axes = sheets.panels(1, 2)
  for axis in axes.flat:
    axis.plot([1, 2], [3, 4], label='shared')
    axis.plot([1, 2], [4, 3], label='other')
  return fig


def test_equal_figures_have_equal_png_and_pdf_files(tmp_path):
  for name in ('a', 'b'):
    sheets.save(_figure(), tmp_path / 'folder' / name)
  for suffix, start in (('png', b'\x89PNG'), ('pdf', b'%PDF')):
    first, second = (tmp_path / f'folder/{n}.{suffix}' for n in 'ab')
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(start)


def test_a_legend_names_each_curve_once():
  fig = _figure()
  sheets.legend_below(fig)
  (legend,) = fig.legends
  assert [text.get_text() for text in legend.get_texts()] == ['shared', 'other']


def _panel_height(labels, **more):
  fig, axes = sheets.panels(1, 1)
  for label in range(labels):
    axes[0, 0].plot([1, 2], [3, 4], label=f'a rather long name {label}' * 2)
  sheets.legend_below(fig, **more)
  fig.savefig(io.BytesIO())
  return axes[0, 0].get_window_extent().height


def test_a_figure_may_grow_so_that_a_long_legend_leaves_its_panels_large():
  assert _panel_height(12) < 0.5 * _panel_height(1)
  assert _panel_height(12, grow=True) == pytest.approx(
      _panel_height(1, grow=True), rel=0.1
  )
