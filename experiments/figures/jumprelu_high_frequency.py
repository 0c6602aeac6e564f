"""Shares of latents that are active on more than 1 % and 10 % of all tokens.

JumpReLU SAEs (arXiv 2407.14435), figure 5. In the paper, JumpReLU and TopK have
more latents than Gated that are active on over 10 % of tokens, although few
latents are. JumpReLU has fewer latents than both that are active on over 1 %.
Shares are of all latents and refer to the held-out tokens of the evaluation.
Points are means over seeds, bars two standard errors.

  python -m experiments.figures.jumprelu_high_frequency --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.suites import command, suites

_METRICS = ('over_10_percent_share', 'over_1_percent_share')
_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', *_METRICS, 'over_10_percent_mass', 'over_1_percent_mass',
    'dead_share', 'tokens_evaluated',
)  # fmt: skip


def needs(scale):
  """Returns the headline suite."""
  return (suites.headline(scale),)


def table(results):
  """Returns one row per member."""
  return drawing.of_members(results, *_COLUMNS)


def figure(rows):
  """Returns shares of latents against L0, one column per site."""
  return panels.by_site(rows, _METRICS, panels.variant_curves)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
