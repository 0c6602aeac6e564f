"""Fidelity against sparsity by site and layer.

Gemma Scope (arXiv 2408.05147), figures 2, 13, 17 and 18. In the paper delta
loss is largest in the residual stream, where an SAE replaces the whole state of
the model, and FVU orders sites differently from delta loss. Ticks on the x axis
mark the L0s of published SAEs of the same site, layer and width, if there are
any. Bars are two standard errors.

  python -m experiments.figures.scope_layers --scale=nano
"""

import sys

from experiments import reference
from experiments.figures import drawing, panels
from experiments.suites import command, scales, suites
from jumprelu.plots import plot_style

_COLUMNS = (
    'model', 'layer', 'site', 'variant', 'width', 'sparsity_coefficient',
    'seed', 'l0', 'fvu', 'delta_loss', 'delta_loss_stderr',
    'loss_recovered_mean', 'dead_share',
)  # fmt: skip


def needs(scale):
  """Returns the suites of all layers."""
  return suites.layers(scale)


def table(results):
  """Returns one row per member and one per published L0."""
  rows = [
      row
      for result in results.values()
      for row in result.rows
      if row['site'] in scales.SITES
  ]
  return drawing.select(rows + reference.released(rows), *_COLUMNS)


def figure(rows):
  """Returns delta loss and FVU: one column per site, one curve per layer."""
  layers = sorted({row['layer'] for row in rows})

  def draw(axis, site_rows, metric):
    for i, layer in enumerate(layers):
      layer_rows = drawing.where(site_rows, layer=layer)
      color = plot_style.shade(i, len(layers))
      points = drawing.over_seeds(
          layer_rows, 'l0', metric, by=('sparsity_coefficient',)
      )
      drawing.curve(axis, points, i, f'Layer {layer}', color=color)
      panels.mark_released(axis, layer_rows, color)

  return panels.by_site(rows, ('delta_loss', 'fvu'), draw)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
