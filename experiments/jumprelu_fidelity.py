"""Fidelity against sparsity of ReLU, Gated, TopK and JumpReLU at three sites.

JumpReLU SAEs (arXiv 2407.14435), figure 2 and its like for MLP and attention
in the appendix; in the JumpReLU paper's words at a given L0 JumpReLU is at
least as faithful as TopK and more than Gated. Loss recovered and FVU of the
same SAEs: Gated SAEs (arXiv 2404.16014), figure 1. Points are means over
seeds; bars are two standard errors of seeds and evaluation text together.

  python -m experiments.jumprelu_fidelity --scale=nano
"""

import sys

from experiments import command, drawing, suites

_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', 'fvu', 'delta_loss', 'delta_loss_stderr', 'loss_recovered',
    'loss_recovered_mean', 'gamma', 'dead_share', 'over_1_percent_share',
    'over_10_percent_share', 'tokens_evaluated', 'tokens_trained',
)  # fmt: skip


def needs(scale):
  """The headline suite."""
  return (suites.headline(scale),)


def table(results):
  """A row a member."""
  (result,) = results.values()
  return drawing.select(result.rows, *_COLUMNS)


def figure(rows):
  """Delta loss, FVU and loss recovered against L0, a column a site."""
  sites = drawing.present(rows, 'site', drawing.SITES)
  metrics = ('delta_loss', 'fvu', 'loss_recovered')
  fig, axes = drawing.panels(len(metrics), len(sites))
  for column, site in zip(axes.T, sites, strict=True):
    column[0].set_title(drawing.SITES[site])
    for axis, metric in zip(column, metrics, strict=True):
      panel(axis, drawing.where(rows, site=site), metric)
    column[-1].set_xlabel(drawing.LABELS['l0'])
  for axis, metric in zip(axes[:, 0], metrics, strict=True):
    axis.set_ylabel(drawing.LABELS[metric])
  drawing.legend(axes[0, 0])
  return fig


def panel(axis, rows, metric):
  """One metric against L0, a curve a variant."""
  for i, variant in enumerate(drawing.VARIANTS):
    points = drawing.over_seeds(
        drawing.where(rows, variant=variant),
        'l0',
        metric,
        by=('sparsity_coefficient', 'target_l0'),
    )
    drawing.curve(axis, points, i, drawing.VARIANTS[variant])
  drawing.log_axis(axis, 'x')
  if metric in ('fvu', 'delta_loss'):
    drawing.log_axis(axis, 'y')


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
