"""SAEs trained with a target L0: accuracy of L0, and its cost in fidelity.

JumpReLU SAEs (arXiv 2407.14435), appendix. The penalty is the squared relative
distance of L0 from its target, instead of L0 times a coefficient. L0 is
expected to be within 10 % of the target (grey), with the same fidelity at an L0
as SAEs with a coefficient. Points are means over seeds, bars two standard
errors.

  python -m experiments.figures.jumprelu_target_l0 --scale=nano
"""

import sys

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing, panels
from experiments.suites import command, scales, suites
from jumprelu.plots import plot_style, sheets

_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', 'fvu', 'delta_loss', 'delta_loss_stderr', 'dead_share',
)  # fmt: skip
_KINDS = {'target': 'With a target L0', 'coefficient': 'With a coefficient'}
_METRICS = ('delta_loss', 'fvu')
_RATIO = 'L0 / target L0'
_BAND = 0.1


def needs(scale):
  """Returns the suites of members with a target and with a coefficient.

  The headline suite also has members with a coefficient, but trains for longer.
  """
  return suites.target_l0(scale), suites.layer(scale, scale.layer)


def table(results):
  """Returns one row per JumpReLU SAE; `ratio` is L0 over the target L0."""
  rows = drawing.of_members(results, *_COLUMNS)
  rows = [row for row in rows if row['site'] in scales.SITES]
  for row in rows:
    target = row['target_l0']
    row['kind'] = 'target' if target else 'coefficient'
    row['ratio'] = row['l0'] / target if target else None
  return rows


def figure(rows):
  """Returns L0 over target, delta loss and FVU, one column per site."""
  sites = drawing.present(rows, 'site', scales.SITES)
  fig, axes = sheets.panels(3, len(sites), sharex=True, sharey='row')
  for column, site in zip(axes.T, sites, strict=True):
    site_rows = drawing.where(rows, site=site)
    column[0].set_title(plot_style.SITES[site])
    _draw_ratio(column[0], drawing.where(site_rows, kind='target'))
    for axis, metric in zip(column[1:], _METRICS, strict=True):
      panels.curves(
          axis,
          site_rows,
          metric,
          column='kind',
          labels=_KINDS,
          is_nested=True,
      )
      plot_style.log_axis(axis, 'x')
    column[-1].set_xlabel(drawing.LABELS['l0'])
  axes_lib.style_row(axes[0], ('ratio',), labels=(_RATIO,))
  for row_axes, metric in zip(axes[1:], _METRICS, strict=True):
    axes_lib.style_row(row_axes, (metric,))
  sheets.legend_below(fig)
  captions.write(fig, rows, _METRICS)
  return fig


def _draw_ratio(axis, rows):
  axis.axhspan(
      1 - _BAND,
      1 + _BAND,
      color=plot_style.FAINT,
      alpha=0.15,
      label=f'Within {_BAND:.0%} of the target'.replace('%', ' %'),
  )
  axis.axhline(1, color=plot_style.FAINT, linewidth=0.8)
  points = drawing.over_seeds(rows, 'l0', 'ratio', by=('target_l0',))
  drawing.curve(axis, points, 0, _KINDS['target'], **drawing.nested(0, 2))
  plot_style.log_axis(axis, 'x')


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
