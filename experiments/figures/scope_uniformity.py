"""Uniformity of the effect of a token's active latents: r_L0.

Gemma Scope (arXiv 2408.05147), figure 16. r_L0 is the effective number of
latents that contribute to the correct next token's logit, divided by L0. The
effective number is the exponential of the entropy of the contributions. In the
paper r_L0 is between 0.45 and 0.7 and falls as L0 grows, most in the residual
stream, and similarly for all widths. Bars are two standard errors.

  python -m experiments.figures.scope_uniformity --scale=nano
"""

import sys

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing, panels
from experiments.suites import command, suites
from jumprelu.plots import plot_style, sheets

_COLUMNS = (
    'layer', 'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'r_l0',
    'r_l0_stderr', 'tokens_r_l0',
)  # fmt: skip


def needs(scale):
  """Returns the suite of the middle layer."""
  return (suites.layer(scale, scale.layer),)


def table(results):
  """Returns one row per member."""
  return drawing.of_members(results, *_COLUMNS)


def figure(rows):
  """Returns r_L0 against L0, one curve per site."""
  fig, axes = sheets.panels(1, 1, size=(4.4, 3.4))
  axis = axes[0, 0]
  panels.curves(axis, rows, 'r_l0', column='site', labels=plot_style.SITES)
  plot_style.log_axis(axis, 'x')
  axis.set_xlabel(drawing.LABELS['l0'])
  axes_lib.style_row(axes[0], ('r_l0',))
  drawing.legend(axis)
  captions.write(fig, rows, ('r_l0',))
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
