"""The frontier plot shows the values of the rows."""

import io
import subprocess
import sys

from matplotlib import figure, image, path
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.release import frontier


def make_row(**changes):
  return {
      'model': 'gemma2_nano',
      'layer': 2,
      'site': 'resid_post',
      'width': 1024,
      'variant': 'jumprelu',
      'sparsity_coefficient': 1e-3,
      'target_l0': 0.0,
      'seed': 0,
      'l0': 30.0,
      'fvu': 0.1,
      'pca_fvu': 0.3,
      'delta_loss': 0.05,
      'delta_loss_stderr': 0.002,
      'tokens_evaluated': 131_072,
      **changes,
  }


@pytest.fixture
def drawn(monkeypatch, tmp_path):
  """Returns a function that draws rows and returns the saved figure."""

  def draw(rows):
    kept = []
    save = figure.Figure.savefig

    def savefig(self, *args, **kwargs):
      kept.append(self)
      save(self, *args, **kwargs)

    monkeypatch.setattr(figure.Figure, 'savefig', savefig)
    frontier.plot_frontier(rows, tmp_path / 'frontier.png')
    return kept[0]

  return draw


def texts(axis):
  return [text.get_text() for text in axis.texts]


def test_each_site_has_a_column_in_fixed_order_with_both_curves(drawn):
  fig = drawn(
      [
          make_row(site='transcoder', pca_fvu=None),
          make_row(site='mlp_out'),
          make_row(site='resid_post'),
      ]
  )
  assert [axis.get_title(loc='left') for axis in fig.axes] == [
      'Residual stream', 'MLP output', 'MLP transcoder', '', '', '',
  ]  # fmt: skip
  assert fig.axes[0].get_ylabel().startswith('FVU')
  assert fig.axes[3].get_ylabel().startswith('Delta loss')
  assert fig.axes[0].get_xscale() == 'log'
  assert fig.axes[0].get_yscale() == 'log'


def test_points_are_the_rows_in_order_of_l0(drawn):
  fig = drawn(
      [
          make_row(l0=40.0, fvu=0.08),
          make_row(l0=10.0, fvu=0.2, sparsity_coefficient=6e-3),
          make_row(l0=20.0, fvu=0.12, sparsity_coefficient=3e-3),
      ]
  )
  lines = [
      line
      for line in fig.axes[0].lines
      if line.get_marker() == 'o' and len(line.get_xdata()) == 3
  ]
  np.testing.assert_array_equal(lines[0].get_xdata(), [10, 20, 40])
  np.testing.assert_array_equal(lines[0].get_ydata(), [0.2, 0.12, 0.08])


def test_error_bars_are_two_standard_errors(drawn):
  fig = drawn([make_row(delta_loss=0.05, delta_loss_stderr=0.004)])
  (bars,) = fig.axes[1].collections
  np.testing.assert_allclose(bars.get_segments()[0], [[30, 0.042], [30, 0.058]])
  assert '± 2 standard errors' in ' '.join(fig.get_suptitle().split())


def test_pca_is_drawn_only_if_it_was_computed(drawn):
  fig = drawn([make_row(), make_row(site='transcoder', pca_fvu=None)])
  names = [axis.get_legend_handles_labels()[1] for axis in fig.axes[:2]]
  assert names == [['PCA of rank L0', 'JumpReLU'], ['JumpReLU']]
  assert legend_texts(fig) == ['PCA of rank L0', 'JumpReLU']


def test_points_are_labelled_with_coefficient_or_target(drawn):
  fig = drawn(
      [
          make_row(sparsity_coefficient=2.5e-3),
          make_row(l0=21.0, sparsity_coefficient=1.0, target_l0=20.0),
          make_row(l0=9.0, sparsity_coefficient=1e-2),
      ]
  )
  assert set(texts(fig.axes[1])) == {
      r'$\lambda = 2.5\cdot 10^{-3}$', 'L0 → 20', r'$\lambda = 10^{-2}$',
  }  # fmt: skip


def series_of(fig):
  """Returns the points of each curve of FVU at the first site, by its name."""
  containers = fig.axes[0].containers
  return {c.get_label(): c.lines[0].get_xydata().tolist() for c in containers}


def legend_texts(fig):
  (legend,) = fig.legends
  return [text.get_text() for text in legend.get_texts()]


def test_several_widths_are_curves_named_in_a_legend(drawn):
  fig = drawn(
      [
          make_row(width=width, l0=l0, fvu=width / l0)
          for width in (16384, 1024)
          for l0 in (20.0, 10.0)
      ]
  )
  assert series_of(fig) == {
      'width 1,024': [[10, 102.4], [20, 51.2]],
      'width 16,384': [[10, 1638.4], [20, 819.2]],
  }
  assert legend_texts(fig) == ['PCA of rank L0', 'width 1,024', 'width 16,384']


def test_a_coefficient_that_several_widths_share_is_labelled_once(drawn):
  fig = drawn(
      [
          make_row(width=width, l0=5e-3 / value, sparsity_coefficient=value)
          for width, values in ((1024, (1e-3, 2e-3)), (2048, (1e-3, 5e-4)))
          for value in values
      ]
  )
  assert sorted(texts(fig.axes[1])) == [
      r'$\lambda = 10^{-3}$',
      r'$\lambda = 2\cdot 10^{-3}$',
      r'$\lambda = 5\cdot 10^{-4}$',
  ]


def test_a_label_does_not_reach_the_bars_of_the_next_points(drawn):
  fig = drawn(
      [
          make_row(
              site=site,
              l0=l0,
              sparsity_coefficient=value,
              delta_loss=0.05 - l0 / 1000,
              delta_loss_stderr=0.004,
          )
          for site in ('resid_post', 'mlp_out', 'attn_heads', 'transcoder')
          for l0, value in ((8.3, 4e-3), (12.6, 2e-3), (17.6, 1e-3))
      ]
  )
  fig.savefig(io.BytesIO())
  for axis in fig.axes[4:]:
    (bars,) = axis.collections
    boxes = [
        bars.get_transform().transform(segment)
        for segment in bars.get_segments()
    ]
    for text in axis.texts:
      # The line under the inclined text, of the length of the text.
      box = text.get_window_extent()
      line = path.Path([(box.x0, box.y0), (box.x1, box.y1)])
      assert not any(line.intersects_path(path.Path(bar)) for bar in boxes)


def test_runs_of_one_variant_and_width_stay_apart(drawn):
  fig = drawn(
      [
          make_row(run=run, l0=l0, layer=layer, variant=variant)
          for run, layer, variant in (
              ('b', 2, 'jumprelu'), ('a', 2, 'jumprelu'), ('a', 2, 'gated'),
              ('a', 5, 'gated'),
          )
          for l0 in (10.0, 20.0)
      ]
  )  # fmt: skip
  assert legend_texts(fig)[1:] == [
      'b · layer 2 · JumpReLU', 'a · layer 2 · gated', 'a · layer 2 · JumpReLU',
      'a · layer 5 · gated',
  ]  # fmt: skip
  assert all(len(points) == 2 for points in series_of(fig).values())
  assert 'layers 2, 5' in fig.get_suptitle()


def test_the_pca_of_each_run_is_a_curve_of_its_own(drawn):
  fig = drawn(
      [
          make_row(run=run, l0=l0, pca_fvu=pca / l0)
          for run, pca in (('a', 2.0), ('b', 4.0))
          for l0 in (10.0, 20.0)
      ]
  )
  curves = [
      line.get_ydata().tolist()
      for line in fig.axes[0].lines
      if line.get_marker() == '.'
  ]
  assert curves == [[0.2, 0.1], [0.4, 0.2]]
  colours = [
      {line.get_color() for line in fig.axes[0].lines if line.get_marker() == m}
      for m in ('.', 'o', 's')
  ]
  assert colours[0] == colours[1] | colours[2] and len(colours[0]) == 2
  assert legend_texts(fig).count('PCA of rank L0') == 1


def test_labels_of_points_are_inside_their_panel(drawn):
  fig = drawn(
      [
          make_row(site=site, l0=l0, sparsity_coefficient=1.61e-3)
          for site in ('resid_post', 'mlp_out', 'attn_heads', 'transcoder')
          for l0 in (10.0, 60.0, 190.0)
      ]
  )
  # Measured at the figure's own resolution.
  fig.savefig(io.BytesIO())
  for axis in fig.axes:
    panel = axis.get_window_extent()
    assert len(axis.texts) >= 3
    for text in axis.texts:
      box = text.get_window_extent()
      assert panel.x0 <= box.x0 and panel.y0 <= box.y0
      assert box.x1 <= panel.x1 and box.y1 <= panel.y1


def test_error_bars_are_inside_their_panel_unless_they_reach_zero(drawn):
  rows = [
      make_row(l0=10.0, delta_loss=0.01),
      make_row(delta_loss=0.006, delta_loss_stderr=0.0015),
  ]
  low, _ = drawn(rows).axes[1].get_ylim()
  assert 0.001 < low < 0.003
  rows.append(make_row(l0=20.0, delta_loss=0.005, delta_loss_stderr=0.01))
  axis = drawn(rows).axes[1]
  assert axis.get_yscale() == 'log' and axis.get_ylim()[0] > 1e-3


def test_an_sae_without_a_coefficient_has_no_label(drawn):
  fig = drawn([make_row(sparsity_coefficient=None, target_l0=None)])
  assert [text for text in texts(fig.axes[1]) if text] == []


def test_logarithmic_axes_are_marked(drawn):
  fig = drawn([make_row(), make_row(l0=10.0, delta_loss=-0.001)])
  assert fig.axes[0].get_ylabel().endswith('(log scale)')
  assert 'log' not in fig.axes[1].get_ylabel()
  assert fig.axes[1].get_xlabel().endswith('(log scale)')


def test_a_negative_delta_loss_is_drawn_on_a_linear_axis(drawn):
  fig = drawn([make_row(delta_loss=-0.001), make_row(l0=10.0)])
  assert fig.axes[1].get_yscale() == 'linear'
  low, high = fig.axes[1].get_ylim()
  assert low < -0.001 and high > 0.05


def test_the_file_is_an_image_with_dark_pixels(drawn, tmp_path):
  drawn([make_row(), make_row(l0=10.0, fvu=0.2)])
  pixels = image.imread(tmp_path / 'frontier.png')
  assert pixels.shape[0] > 800 and pixels.shape[1] > 700
  assert 0.005 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.3


def test_rows_without_an_l0_are_left_out(drawn):
  fig = drawn([make_row(), make_row(l0=None), make_row(l0=0.0, fvu=None)])
  assert len(texts(fig.axes[1])) == 1


def test_no_rows_is_an_error(tmp_path):
  with pytest.raises(errors.DataError, match='no row of results'):
    frontier.plot_frontier([], tmp_path / 'frontier.png')


def test_matplotlib_is_imported_only_to_draw():
  code = (
      'import sys; from jumprelu.release import frontier;'
      " assert 'matplotlib' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_the_heading_names_the_unfinished_among_several_runs(drawn):
  stop = 'stopped at step 16 of 40'
  fig = drawn([make_row(run='a', unfinished=stop), make_row(run='b', l0=9.0)])
  assert f'a: {stop}' in ' '.join(fig.get_suptitle().split())


@pytest.mark.parametrize(
    'changes, marked',
    [
        ({'loss_clean': 3.0 + 1e-6}, False),
        ({'loss_clean': 3.01}, True),
        ({'loss_clean': 3.0, 'tokens_evaluated': 9}, True),
        # Losses of different models differ anyway.
        ({'loss_clean': 2.0, 'model': 'gemma2_2b'}, False),
    ],
)
def test_the_heading_marks_results_of_different_texts(drawn, changes, marked):
  fig = drawn([make_row(loss_clean=3.0), make_row(l0=9.0, **changes)])
  heading = ' '.join(fig.get_suptitle().split())
  assert ('measured on different texts' in heading) == marked


def test_the_heading_names_the_step_of_an_unfinished_run(drawn):
  stop = 'stopped at step 16 of 40'
  fig = drawn([make_row(unfinished=stop), make_row(unfinished=stop, l0=9.0)])
  assert ' '.join(fig.get_suptitle().split()).count(stop) == 1
