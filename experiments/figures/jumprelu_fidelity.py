"""Fidelity against sparsity of ReLU, Gated, TopK and JumpReLU at three sites.

JumpReLU SAEs (arXiv 2407.14435), figure 2 and the corresponding figures for MLP
and attention in the appendix. The JumpReLU paper reports that, at equal L0,
JumpReLU is at least as faithful as TopK and more faithful than Gated. The
panels of loss recovered correspond to figure 1 of Gated SAEs (arXiv
2404.16014). Points are means over seeds; bars are two standard errors, of seeds
and evaluation text combined.

  python -m experiments.figures.jumprelu_fidelity --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.suites import command, suites

_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', 'fvu', 'delta_loss', 'delta_loss_stderr', 'loss_recovered',
    'loss_recovered_mean', 'gamma', 'dead_share', 'over_1_percent_share',
    'over_10_percent_share', 'tokens_evaluated', 'tokens_trained',
)  # fmt: skip


def needs(scale):
  """Returns the headline suite."""
  return (suites.headline(scale),)


def table(results):
  """Returns one row per member."""
  return drawing.of_members(results, *_COLUMNS)


def figure(rows):
  """Returns delta loss, FVU and loss recovered, one column per site."""
  metrics = ('delta_loss', 'fvu', 'loss_recovered')
  return panels.by_site(rows, metrics, panels.variant_curves)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
