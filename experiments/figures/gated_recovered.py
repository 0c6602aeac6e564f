"""Loss recovered against L0, from zero ablation and from mean ablation.

Gated SAEs (arXiv 2404.16014), figures 1, 12 and 13. In the paper Gated SAEs
recover more of the loss than the L1 baseline at every L0 and site. The paper
measures relative to zero ablation, by which any SAE of the residual stream
looks good; mean ablation allows a better comparison of sites. Points are means
over seeds, bars two standard errors.

  python -m experiments.figures.gated_recovered --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.suites import command, suites

_METRICS = ('loss_recovered', 'loss_recovered_mean')
_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', *_METRICS, 'delta_loss', 'delta_loss_stderr',
)  # fmt: skip


def needs(scale):
  """Returns the headline suite."""
  return (suites.headline(scale),)


def table(results):
  """Returns one row per member."""
  return drawing.of_members(results, *_COLUMNS)


def figure(rows):
  """Returns both metrics against L0, one column per site."""
  return panels.by_site(rows, _METRICS, panels.variant_curves)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
