"""SAEs that are asked for an L0: do they reach it, and at what cost?

JumpReLU SAEs (arXiv 2407.14435), appendix: the penalty is the squared relative
distance of L0 from its target, instead of L0 times a coefficient. Expected of
it: that L0 lies within 10 % (grey) of what was asked, and that fidelity at an
L0 is that of SAEs with a coefficient. Points are means over seeds, bars two
standard errors.

  python -m experiments.figures.jumprelu_target_l0 --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.suites import command, scales, suites
from jumprelu.release import plot_style

_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', 'fvu', 'delta_loss', 'delta_loss_stderr', 'dead_share',
)  # fmt: skip
_KINDS = {'target': 'asked for an L0', 'coefficient': 'with a coefficient'}
_METRICS = ('delta_loss', 'fvu')
_BAND = 0.1


def needs(scale):
  """Members with a target, and those with a coefficient.

  The headline suite has such members too, but trains them for longer.
  """
  return suites.target_l0(scale), suites.layer(scale, scale.layer)


def table(results):
  """A row a JumpReLU SAE; `ratio` is L0 over what was asked."""
  rows = drawing.of_members(results, *_COLUMNS)
  rows = [row for row in rows if row['site'] in scales.SITES]
  for row in rows:
    asked = row['target_l0']
    row['kind'] = 'target' if asked else 'coefficient'
    row['ratio'] = row['l0'] / asked if asked else None
  return rows


def figure(rows):
  """L0 over its target, then delta loss and FVU against L0, a column a site."""
  sites = drawing.present(rows, 'site', scales.SITES)
  fig, axes = drawing.panels(3, len(sites))
  for column, site in zip(axes.T, sites, strict=True):
    found = drawing.where(rows, site=site)
    column[0].set_title(plot_style.SITES[site])
    _reached(column[0], drawing.where(found, kind='target'))
    for axis, metric in zip(column[1:], _METRICS, strict=True):
      panels.curves(axis, found, metric, column='kind', labels=_KINDS)
      plot_style.log_axis(axis, 'x')
      panels.log_y(axis, found, metric)
      axis.set_xlabel(drawing.LABELS['l0'])
  labels = ('L0 over the target', *map(drawing.LABELS.get, _METRICS))
  for axis, label in zip(axes[:, 0], labels, strict=True):
    axis.set_ylabel(label)
  panels.legend_below(fig)
  return fig


def _reached(axis, rows):
  axis.axhspan(1 - _BAND, 1 + _BAND, color=plot_style.FAINT, alpha=0.15)
  axis.axhline(1, color=plot_style.FAINT, linewidth=0.8)
  points = drawing.over_seeds(rows, 'target_l0', 'ratio', by=('target_l0',))
  drawing.curve(axis, points, 0, _KINDS['target'])
  plot_style.log_axis(axis, 'x')
  axis.set_xlabel('L0 that was asked for')


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
