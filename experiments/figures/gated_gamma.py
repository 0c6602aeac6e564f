"""Shrinkage: the relative reconstruction bias gamma against L0.

Gated SAEs (arXiv 2404.16014), figures 6 and 14. Dividing reconstructions by
gamma minimises their error. In the paper the L1 baseline shrinks (gamma < 1),
most of all at small L0, and Gated SAEs do not (gamma near 1). JumpReLU is also
expected near 1, because it has no L1 penalty. Points are means over seeds, bars
two standard errors.

  python -m experiments.figures.gated_gamma --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.suites import command, suites
from jumprelu.plots import plot_style

_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', 'gamma', 'tokens_evaluated',
)  # fmt: skip


def needs(scale):
  """Returns the headline suite."""
  return (suites.headline(scale),)


def table(results):
  """Returns one row per member."""
  return drawing.of_members(results, *_COLUMNS)


def figure(rows):
  """Returns gamma against L0 with a line at 1, one column per site."""

  def draw(axis, site_rows, metric):
    panels.variant_curves(axis, site_rows, metric)
    axis.axhline(
        1,
        color=plot_style.FAINT,
        linewidth=0.9,
        linestyle='--',
        label='No shrinkage: gamma = 1',
    )

  return panels.by_site(rows, ('gamma',), draw)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
