"""Tables survive a round trip through CSV; error bars are standard errors."""

import numpy as np
import pytest

from experiments.figures import drawing, panels
from jumprelu.plots import sheets


def test_a_table_survives_its_file(tmp_path):
  rows = [
      {'site': 'mlp_out', 'seed': 0, 'l0': 12.25, 'fvu': None},
      {'site': 'mlp_out', 'seed': 1, 'l0': np.float64(1 / 3), 'more': 2.5e-7},
  ]
  sheets.write_csv(rows, tmp_path / 'table.csv', digits=6)
  assert drawing.read_csv(tmp_path / 'table.csv') == [
      {'site': 'mlp_out', 'seed': 0, 'l0': 12.25, 'fvu': None, 'more': None},
      {'site': 'mlp_out', 'seed': 1, 'l0': 0.333333, 'fvu': None,
       'more': 2.5e-7},
  ]  # fmt: skip


def test_points_are_means_over_seeds_with_both_errors():
  rng = np.random.default_rng(0)
  rows = [
      {'k': k, 'l0': rng.normal(k), 'y': rng.normal(), 'y_stderr': 0.25}
      for k in (20, 10)
      for _ in range(5)
  ]
  low, high = drawing.over_seeds(rows, 'l0', 'y', by=('k',))
  for point, k in ((low, 10), (high, 20)):
    group = drawing.where(rows, k=k)
    x = np.array([row['l0'] for row in group])
    y = np.array([row['y'] for row in group])
    between = y.std(ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(
        point,
        (
            x.mean(),
            y.mean(),
            x.std(ddof=1) / np.sqrt(5),
            # All seeds share the text, so averaging keeps its error.
            np.sqrt(between**2 + 0.25**2),
        ),
    )


def test_one_seed_has_the_error_of_its_text_alone():
  (point,) = drawing.over_seeds(
      [{'k': 1, 'l0': 3.0, 'y': 2.0, 'y_stderr': 0.5}], 'l0', 'y', by=('k',)
  )
  assert point == (3.0, 2.0, 0.0, 0.5)


def test_undefined_values_are_left_out_of_the_means():
  rows = [{'k': 1, 'l0': 3.0, 'y': None}, {'k': 1, 'l0': 5.0, 'y': 2.0}]
  (point,) = drawing.over_seeds(rows, 'l0', 'y', by=('k',))
  assert point == (5.0, 2.0, 0.0, 0.0)


@pytest.mark.parametrize(
    'lowest, scale', [(0.01, 'log'), (-0.001, 'symlog'), (-0.01, 'linear')]
)
def test_a_loss_that_fell_is_drawn_where_the_axis_is_linear(lowest, scale):
  rows = [
      {'site': 'mlp_out', 'variant': 'topk', 'target_l0': k, 'l0': float(k),
       'delta_loss': y}
      for k, y in ((8, 0.2), (16, lowest))
  ]  # fmt: skip
  fig = panels.by_site(rows, ('delta_loss',), panels.variant_curves)
  (axis,) = fig.axes
  assert axis.get_title() == 'MLP output'
  assert (axis.get_xscale(), axis.get_yscale()) == ('log', scale)
  (line,) = [line for line in axis.lines if len(line.get_xdata()) == 2]
  np.testing.assert_array_equal(line.get_xdata(), [8, 16])
  np.testing.assert_array_equal(line.get_ydata(), [0.2, lowest])


def test_curves_are_named_once_below_all_panels():
  rows = [
      {'site': site, 'variant': variant, 'l0': 8.0, 'fvu': 0.2}
      for site in ('mlp_out', 'resid_post')
      for variant in ('jumprelu', 'topk')
  ]
  fig = panels.by_site(rows, ('fvu',), panels.variant_curves)
  (legend,) = fig.legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == ['TopK', 'JumpReLU']
