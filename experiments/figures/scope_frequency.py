"""Histograms of firing frequency at growing width.

Gemma Scope (arXiv 2408.05147), figure 5, which uses the coefficient 6e-4. In
the paper most latents fire more rarely in wider SAEs, and every width has a
group of latents that fires on more than 10 % of tokens. Histograms are means
over seeds, one panel per coefficient. Dotted lines mark 1 % and 10 % of tokens.

  python -m experiments.figures.scope_frequency --scale=nano
"""

import sys

from experiments.figures import captions, drawing, frequencies
from experiments.suites import command, suites
from jumprelu.plots import plot_style, sheets


def needs(scale):
  """Returns the suite of growing widths."""
  return (suites.ladder(scale),)


def table(results):
  """Returns one row per bin of a member's histogram."""
  (result,) = results.values()
  return frequencies.table(result, lambda row: True)


def figure(rows):
  """Returns one panel per coefficient with one histogram per width."""
  widths = sorted({row['width'] for row in rows})
  values = sorted({row['sparsity_coefficient'] for row in rows})
  fig, axes = sheets.panels(1, len(values), sharex=True, sharey=True)
  for axis, value in zip(axes[0], values, strict=True):
    axis.set_title(f'$\\lambda$ = {value:g}')
    for i, width in enumerate(widths):
      selected = drawing.where(rows, sparsity_coefficient=value, width=width)
      color = plot_style.shade(i, len(widths))
      frequencies.steps(axis, selected, color, f'Width {width:,}')
  frequencies.finish(axes[0], rows)
  sheets.legend_below(fig)
  captions.write(fig, rows, bars='means over seeds, no bars')
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
