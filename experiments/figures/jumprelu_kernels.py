"""Effect of the kernel's shape in the pseudo-derivatives.

JumpReLU SAEs (arXiv 2407.14435), an appendix. In the paper the rectangle
performs as well as the other kernels. All kernels have the same bandwidth but
smooth by different amounts: a Gaussian has 3.5 times the rectangle's standard
deviation. Points are means over seeds, bars two standard errors.

  python -m experiments.figures.jumprelu_kernels --scale=nano
"""

import sys

from experiments.figures import options
from experiments.suites import command, suites

_KERNELS = ('triangle', 'epanechnikov', 'gaussian')


def _suite(kernel):
  return f'kernel_{kernel}'


def needs(scale):
  """Returns the suite of plain JumpReLU SAEs and one suite per kernel."""
  return (
      suites.plain(scale, 'jumprelu'),
      *(
          suites.ablation(scale, _suite(kernel), 'jumprelu', kernel=kernel)
          for kernel in _KERNELS
      ),
  )


table = options.table


def figure(rows):
  """Returns panels of FVU, delta loss and the share of dead latents."""
  labels = {'plain_jumprelu': 'Rectangle'}
  labels |= {_suite(kernel): kernel.capitalize() for kernel in _KERNELS}
  return options.figure(rows, labels, ('fvu', 'delta_loss', 'dead_share'))


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
