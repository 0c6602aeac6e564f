"""What of a Gated SAE matters: each of its parts left out.

Gated SAEs (arXiv 2404.16014), figure 8, of the original with unit decoder rows.
In the paper it is the frozen decoder of the gate's own reconstruction that
matters most; without r_mag or with encoders apart the SAE does about as well.
Points are means over seeds, bars two standard errors.

  python -m experiments.figures.gated_ablations --scale=nano
"""

import sys

from experiments.figures import options
from experiments.suites import command, suites

_LABELS = {
    'gated_unit': 'Gated',
    'gated_unfrozen': "gate's decoder not frozen",
    'gated_no_r_mag': 'no r_mag',
    'gated_untied': 'two encoders',
}


def needs(scale):
  """Gated SAEs as they were first, and those without a part."""
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
  """Loss recovered, FVU and gamma."""
  return options.figure(rows, _LABELS, ('loss_recovered', 'fvu', 'gamma'))


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
