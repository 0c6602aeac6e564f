"""Pseudo-derivatives for pre-activations as well as for thresholds.

JumpReLU SAEs (arXiv 2407.14435), an appendix. In the paper, SAEs with an L0
penalty train worse if pre-activations also get straight-through gradients, and
latents die. Points are means over seeds, bars two standard errors.

  python -m experiments.figures.jumprelu_pre_acts --scale=nano
"""

import sys

from experiments.figures import drawing, options
from experiments.suites import command, suites

_LABELS = {
    'plain_jumprelu': 'Gradients to thresholds alone',
    'to_pre_acts': 'Gradients to pre-activations too',
}


def needs(scale):
  """Returns plain JumpReLU SAEs, and SAEs whose encoder gets the gradients."""
  return (
      suites.jumprelu(scale),
      suites.ablation(
          scale, 'to_pre_acts', 'jumprelu', gradient_to_pre_acts=True
      ),
  )


def table(results):
  """Returns one row per JumpReLU SAE, with its `option`."""
  rows = drawing.where(options.table(results), variant='jumprelu')
  return [
      row | {'option': 'plain_jumprelu'} if row['option'] == 'headline' else row
      for row in rows
  ]


def figure(rows):
  """Returns panels of FVU, delta loss and the share of dead latents."""
  return options.figure(rows, _LABELS, ('fvu', 'delta_loss', 'dead_share'))


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
