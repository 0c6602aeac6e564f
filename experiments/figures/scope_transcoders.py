"""Transcoders and SAEs of the MLP's output, layer by layer.

Gemma Scope (arXiv 2408.05147), figure 11. In the paper transcoders, which
reconstruct the MLP's output from its input, cost more loss than SAEs of that
output at equal L0; the gap varies with the layer. Widths, tokens and
coefficients are the same for both. Bars are two standard errors.

  python -m experiments.figures.scope_transcoders --scale=nano
"""

import functools
import sys

from experiments.figures import drawing, panels
from experiments.suites import command, suites
from jumprelu.plots import plot_style

_SITES = ('mlp_out', 'transcoder')
_METRICS = ('delta_loss', 'fvu')
_COLUMNS = (
    'layer', 'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu',
    'delta_loss', 'delta_loss_stderr', 'dead_share',
)  # fmt: skip


def needs(scale):
  """Returns the suites of all layers."""
  return suites.layers(scale)


def table(results):
  """Returns one row per member at the MLP."""
  rows = drawing.of_members(results, *_COLUMNS)
  return [row for row in rows if row['site'] in _SITES]


def figure(rows):
  """Returns delta loss and FVU against L0, one column per layer."""
  layers = sorted({row['layer'] for row in rows})
  labels = {site: plot_style.SITES[site] for site in _SITES}
  return panels.grid(
      rows,
      _METRICS,
      functools.partial(panels.curves, column='site', labels=labels),
      column='layer',
      titles={layer: f'Layer {layer}' for layer in layers},
      size=(2.9, 2.6),
  )


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
