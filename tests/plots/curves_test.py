"""Plots of training metrics: a panel per site, a line per member."""

import io

import numpy as np
import pytest

from jumprelu.plots import curves

STEPS = (10, 20, 30)


def make_rows(**changes):
  """Returns a member's rows, in which only L0 differs between members."""
  member = {
      'run': 'a', 'model': 'gemma2_nano', 'layer': 2, 'site': 'resid_post',
      'width': 512, 'variant': 'jumprelu', 'sparsity_coefficient': 1e-3,
      'target_l0': 0.0, 'seed': 0, **changes,
  }  # fmt: skip
  base = 1e5 * member['sparsity_coefficient'] + member['target_l0']
  return [
      member
      | {
          'step': step,
          'tokens_trained': 100 * step,
          'l0': base / step,
          'fvu': 1 / step,
          'loss': 2 / step,
          'dead_share': 0.0,
          'learning_rate': 1e-4 * step,
      }
      | changes
      for step in STEPS
  ]


def lines_of(axis):
  """Returns the lines of members by label; targets have two points."""
  return {
      line.get_label(): line
      for line in axis.lines
      if len(line.get_xdata()) == len(STEPS)
  }


def titles(fig):
  return [axis.get_title(loc='left') for axis in fig.axes if axis.axison]


def legend_texts(fig):
  (legend,) = fig.legends
  return [text.get_text() for text in legend.get_texts()]


def test_each_site_has_a_panel_and_each_member_a_line_with_its_values():
  rows = [
      row
      for site in ('transcoder', 'resid_post')
      for coefficient in (1e-3, 4e-3)
      for row in make_rows(site=site, sparsity_coefficient=coefficient)
  ]
  fig = curves.plot(rows, 'l0')
  assert titles(fig) == ['Residual stream', 'MLP transcoder']
  for axis in fig.axes:
    lines = lines_of(axis)
    assert list(lines) == [
        r'$\lambda = 10^{-3}$', r'$\lambda = 4\cdot 10^{-3}$',
    ]  # fmt: skip
    for line, l0 in zip(lines.values(), (100, 400), strict=True):
      np.testing.assert_array_equal(line.get_xdata(), [1000, 2000, 3000])
      np.testing.assert_allclose(line.get_ydata(), l0 / np.array(STEPS))
  first, second = lines_of(fig.axes[0]).values()
  assert first.get_color() != second.get_color()
  assert fig.axes[0].get_yscale() == 'log'
  assert 'log scale' in fig.axes[0].get_ylabel()


def test_lines_may_be_drawn_over_steps():
  fig = curves.plot(make_rows(), 'loss', over='steps')
  (line,) = lines_of(fig.axes[0]).values()
  np.testing.assert_array_equal(line.get_xdata(), STEPS)
  assert fig.axes[0].get_xlabel() == 'Steps'


def test_targets_are_drawn_in_the_colour_of_their_member():
  rows = make_rows(target_l0=20.0) + make_rows(target_l0=50.0)
  axis = curves.plot(rows, 'l0').axes[0]
  targets = {
      line.get_ydata()[0]: line.get_color()
      for line in axis.lines
      if len(line.get_ydata()) == 2
  }
  lines = lines_of(axis)
  assert targets == {
      20.0: lines['L0 → 20'].get_color(),
      50.0: lines['L0 → 50'].get_color(),
  }
  axis = curves.plot(rows, 'fvu').axes[0]
  assert all(len(line.get_ydata()) == 3 for line in axis.lines)


def test_runs_widths_variants_and_seeds_are_named_if_they_differ():
  rows = make_rows() + make_rows(run='b', width=1024, variant='gated', seed=1)
  assert legend_texts(curves.plot(rows, 'loss')) == [
      'a · width 512 · JumpReLU · seed 0', 'b · width 1,024 · gated · seed 1',
  ]  # fmt: skip


def test_lines_that_share_a_colour_differ_in_dashes_or_markers():
  rows = [
      row
      for seed in range(9)
      for coefficient in (1e-3, 4e-3)
      for row in make_rows(seed=seed, sparsity_coefficient=coefficient)
  ]
  lines = lines_of(curves.plot(rows, 'loss').axes[0]).values()
  looks = {
      (line.get_color(), str(line._unscaled_dash_pattern), line.get_marker())
      for line in lines
  }
  assert len(looks) == len(lines) == 18


def test_panels_share_the_y_axis():
  rows = make_rows() + make_rows(site='mlp_out', fvu=0.9)
  first, second = curves.plot(rows, 'fvu').axes
  assert first.get_ylim() == second.get_ylim()
  assert first.get_yscale() == second.get_yscale() == 'log'
  low, high = first.get_ylim()
  assert low < 1 / 30 and high > 0.9


def test_an_axis_of_zeros_only_is_low():
  (axis,) = curves.plot(make_rows(), 'dead_share').axes
  assert axis.get_ylim() == (0, 0.01)


def test_a_single_schedule_has_no_coefficient():
  rows = make_rows() + make_rows(sparsity_coefficient=4e-3)
  assert not curves.plot(rows, 'learning_rate').legends


def test_a_legend_has_rows_of_equal_length():
  rows = [
      row
      for run in ('first', 'second')
      for target in (10.0, 30.0)
      for row in make_rows(run=run, target_l0=target, site='mlp_out')
  ]
  (legend,) = curves.plot(rows, 'l0').legends
  # Four of the five entries would fit beside each other in a wide figure.
  assert legend._ncols in (2, 3)


def test_equal_learning_rates_are_drawn_once_per_run():
  rows = [
      row
      for run in 'ab'
      for site in ('resid_post', 'mlp_out')
      for row in make_rows(run=run, site=site)
  ]
  fig = curves.plot(rows, 'learning_rate')
  assert titles(fig) == ['Schedule']
  assert list(lines_of(fig.axes[0])) == ['a', 'b']
  assert '4 SAEs' in fig.get_suptitle()


def test_layers_have_panels_of_their_own():
  rows = make_rows(layer=5) + make_rows(layer=2)
  fig = curves.plot(rows, 'fvu')
  assert titles(fig) == ['Residual stream, layer 2', 'Residual stream, layer 5']


def test_undefined_values_are_gaps_and_zeros_make_the_axis_linear():
  rows = make_rows()
  rows[1]['loss'] = None
  rows[2]['loss'] = 0.0
  fig = curves.plot(rows, 'loss')
  (line,) = lines_of(fig.axes[0]).values()
  np.testing.assert_array_equal(line.get_ydata(), [0.2, np.nan, 0.0])
  assert fig.axes[0].get_yscale() == 'linear'
  assert 'log' not in fig.axes[0].get_ylabel()


def test_only_logged_metrics_are_drawable_and_thresholds_among_them():
  rows = make_rows(overflow=0.0)
  names = ['loss', 'l0', 'fvu', 'dead_share', 'learning_rate']
  assert curves.drawable(rows) == names
  rows = make_rows(threshold=0.1, dead_share=None)
  assert curves.drawable(rows) == [
      'loss',
      'l0',
      'fvu',
      'threshold',
      'learning_rate',
  ]
  label = curves.plot(rows, 'threshold').axes[0].get_ylabel()
  assert label == 'Mean threshold, in scaled activations (log scale)'


def test_the_heading_names_model_layer_saes_and_tokens():
  heading = curves.plot(make_rows(), 'loss').get_suptitle()
  assert heading == 'gemma2_nano · layer 2 · 1 SAE · 3,000 tokens'


@pytest.mark.parametrize('sites', [1, 4])
def test_titles_and_labels_of_panels_do_not_overlap(sites):
  names = ('resid_post', 'mlp_out', 'attn_heads', 'transcoder')[:sites]
  rows = [row for site in names for row in make_rows(site=site)]
  fig = curves.plot(rows, 'l0')
  fig.savefig(io.BytesIO())
  for text in ('title', 'label'):
    boxes = [
        axis._left_title.get_window_extent()
        if text == 'title'
        else axis.xaxis.label.get_window_extent()
        for axis in fig.axes
    ]
    for left, right in zip(boxes, boxes[1:], strict=False):
      assert left.x1 < right.x0
