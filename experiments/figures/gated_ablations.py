"""Ablation of Gated SAEs: the effect of removing each component.

Gated SAEs (arXiv 2404.16014), figure 8, with unit decoder rows as in the paper.
In the paper, freezing the decoder in the gate's auxiliary reconstruction
matters most; removing r_mag or untying the encoders changes little. Points are
means over seeds, bars two standard errors.

  python -m experiments.figures.gated_ablations --scale=nano
"""

import sys

from experiments.figures import options
from experiments.suites import command, suites

_LABELS = {
    'gated_unit': 'Gated',
    'gated_unfrozen': "Gate's decoder not frozen",
    'gated_no_r_mag': 'No r_mag',
    'gated_untied': 'Two encoders',
}


def needs(scale):
  """Returns the suites of original Gated SAEs and of the ablations."""
  without = {
      'gated_unfrozen': {'frozen_decoder': False},
      'gated_no_r_mag': {'rescale': False},
      'gated_untied': {'tied': False},
  }
  return (
      suites.gated_unit(scale),
      *(
          suites.ablation(scale, name, 'gated', decoder_norm='unit', **fields)
          for name, fields in without.items()
      ),
  )


table = options.table


def figure(rows):
  """Returns panels of loss recovered, FVU and gamma."""
  return options.figure(rows, _LABELS, ('loss_recovered', 'fvu', 'gamma'))


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
