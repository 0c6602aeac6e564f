"""Fidelity against sparsity of ReLU, Gated, TopK and JumpReLU at three sites.

JumpReLU SAEs (arXiv 2407.14435), figure 2 and its like for MLP and attention
in the appendix; in the JumpReLU paper's words at a given L0 JumpReLU is at
least as faithful as TopK and more than Gated. Loss recovered and FVU of the
same SAEs: Gated SAEs (arXiv 2404.16014), figure 1. Points are means over
seeds; bars are two standard errors of seeds and evaluation text together.

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
  """The headline suite."""
  return (suites.headline(scale),)


def table(results):
  """A row a member."""
  return drawing.of_members(results, *_COLUMNS)


def figure(rows):
  """Delta loss, FVU and loss recovered against L0, a column a site."""
  metrics = ('delta_loss', 'fvu', 'loss_recovered')
  return panels.by_site(rows, metrics, panels.variant_curves)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
