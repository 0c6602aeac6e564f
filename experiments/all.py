"""One command for all figures of the papers that need no human raters.

Each suite is trained once, even if several figures are drawn from it. A killed
command resumes when it is run again. README.md in this folder lists the figures
and their cost.

  python -m experiments.all --scale=nano
  python -m experiments.all --quick            # checks the code, in minutes
  python -m experiments.all --scale=gemma2_2b  # exact suites and their cost
"""

import sys

from experiments.figures import (
    gated_ablations,
    gated_gamma,
    gated_ito,
    gated_recovered,
    gated_rescaled,
    gated_shrinkage,
    gated_toy_mixture,
    jumprelu_bandwidth,
    jumprelu_fidelity,
    jumprelu_high_frequency,
    jumprelu_histograms,
    jumprelu_kernels,
    jumprelu_pre_acts,
    jumprelu_pseudo_derivatives,
    jumprelu_target_l0,
    scope_frequency,
    scope_layers,
    scope_positions,
    scope_precision,
    scope_splitting,
    scope_text_subsets,
    scope_transcoders,
    scope_transfer,
    scope_uniformity,
    scope_width,
)
from experiments.suites import command

# Figures that share suites are listed next to each other.
FIGURES = (
    jumprelu_pseudo_derivatives,
    gated_shrinkage,
    gated_toy_mixture,
    jumprelu_fidelity,
    jumprelu_high_frequency,
    jumprelu_histograms,
    gated_gamma,
    gated_recovered,
    gated_ito,
    scope_layers,
    scope_positions,
    scope_precision,
    scope_transcoders,
    scope_uniformity,
    scope_text_subsets,
    scope_transfer,
    scope_width,
    scope_frequency,
    scope_splitting,
    jumprelu_target_l0,
    jumprelu_bandwidth,
    jumprelu_kernels,
    jumprelu_pre_acts,
    gated_ablations,
    gated_rescaled,
)

if __name__ == '__main__':
  sys.exit(command.main(FIGURES, __doc__, 'all'))
