"""Every figure of the papers that needs no human raters, by one command.

Suites are trained one after the other, each once, however many figures are
drawn from it; a killed run goes on where it was. README.md of this folder has
what each figure shows, and what it costs.

  python -m experiments.all --scale=nano
  python -m experiments.all --quick            # minutes: does the code run?
  python -m experiments.all --scale=gemma2_2b  # exact suites, and their cost
"""

import sys

from experiments import (
    command,
    gated_ito,
    gated_shrinkage,
    gated_toy_mixture,
    jumprelu_fidelity,
    jumprelu_pseudo_derivatives,
    scope_text_subsets,
    scope_transfer,
)

FIGURES = (
    jumprelu_fidelity,
    jumprelu_pseudo_derivatives,
    gated_ito,
    gated_shrinkage,
    gated_toy_mixture,
    scope_text_subsets,
    scope_transfer,
)


if __name__ == '__main__':
  sys.exit(command.main(FIGURES, __doc__, 'all'))
