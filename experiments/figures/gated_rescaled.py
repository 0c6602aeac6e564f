"""Gated SAEs against an L1 baseline whose shrinkage is undone.

Gated SAEs (arXiv 2404.16014), figure 9. It compares the L1 baseline, the
baseline with a gain and a shift for every latent, which undo only shrinkage,
and Gated SAEs. In the paper rescaling improves the baseline, but Gated SAEs
remain better. Points are means over seeds, bars two standard errors.

  python -m experiments.figures.gated_rescaled --scale=nano
"""

import sys

from experiments.figures import options
from experiments.suites import command, suites

_LABELS = {
    'plain_relu': 'ReLU + L1',
    'plain_relu_rescaled': 'ReLU + L1, rescaled and shifted',
    'gated_unit': 'Gated',
}


def needs(scale):
  """Returns the suites of the three variants, with unit decoder rows."""
  return (
      suites.plain(scale, 'relu'),
      suites.plain(scale, 'relu_rescaled'),
      suites.gated_unit(scale),
  )


table = options.table


def figure(rows):
  """Returns panels of loss recovered, FVU and gamma."""
  return options.figure(rows, _LABELS, ('loss_recovered', 'fvu', 'gamma'))


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
