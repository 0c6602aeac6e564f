"""Fidelity against sparsity at growing width and equal coefficients.

Gemma Scope (arXiv 2408.05147), figure 4. In the paper wider SAEs cost less loss
at equal L0. Grey dotted lines connect SAEs of one coefficient and show how L0
depends on the width; the L0s in the names of the paper's releases suggest that
greater width lowers large L0s. Ticks on the x axis mark the L0s of published
SAEs of the same layer and width, if there are any. Points are means over seeds,
bars two standard errors.

  python -m experiments.figures.scope_width --scale=nano
"""

import sys

from experiments import reference
from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing, panels
from experiments.suites import command, suites
from jumprelu.plots import plot_style, sheets

_COLUMNS = (
    'model', 'layer', 'site', 'variant', 'width', 'sparsity_coefficient',
    'seed', 'l0', 'fvu', 'delta_loss', 'delta_loss_stderr', 'dead_share',
)  # fmt: skip
_METRICS = ('delta_loss', 'fvu')


def needs(scale):
  """Returns the suite of growing widths."""
  return (suites.ladder(scale),)


def table(results):
  """Returns one row per member and one per published L0."""
  (result,) = results.values()
  rows = result.rows + reference.released(result.rows)
  return drawing.select(rows, *_COLUMNS)


def figure(rows):
  """Returns delta loss and FVU against L0, one curve per width."""
  fig, axes = sheets.panels(1, len(_METRICS), size=(4.0, 3.4))
  widths = sorted({row['width'] for row in rows})
  values = sorted({row['sparsity_coefficient'] or 0 for row in rows} - {0})
  for axis, metric in zip(axes[0], _METRICS, strict=True):
    for value in values:
      points = drawing.over_seeds(
          drawing.where(rows, sparsity_coefficient=value),
          'l0',
          metric,
          by=('width',),
      )
      axis.plot(
          [point.x for point in points],
          [point.y for point in points],
          color=plot_style.FAINT,
          linewidth=0.8,
          linestyle=':',
          label='Equal coefficients',
      )
    for i, width in enumerate(widths):
      width_rows = drawing.where(rows, width=width)
      color = plot_style.shade(i, len(widths))
      points = drawing.over_seeds(
          width_rows, 'l0', metric, by=('sparsity_coefficient',)
      )
      drawing.curve(axis, points, i, f'Width {width:,}', color=color)
      panels.mark_released(axis, width_rows, color)
    plot_style.log_axis(axis, 'x')
    axis.set_xlabel(drawing.LABELS['l0'])
  axes_lib.style_row(axes[0], _METRICS)
  sheets.legend_below(fig)
  captions.write(fig, rows, _METRICS)
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
