"""Fidelity against sparsity by site and layer.

Gemma Scope (arXiv 2408.05147), figures 2, 13, 17 and 18. In the paper delta
loss is largest in the residual stream, where all that the model has computed
so far is replaced, and FVU does not order sites as delta loss does.
Ticks on the x axis, where the paper has SAEs of the same site, layer and
width: the L0s of those. Bars are two standard errors.

  python -m experiments.figures.scope_layers --scale=nano
"""

import sys

from experiments import reference
from experiments.figures import drawing, panels
from experiments.suites import command, scales, suites

_COLUMNS = (
    'model', 'layer', 'site', 'variant', 'width', 'sparsity_coefficient',
    'seed', 'l0', 'fvu', 'delta_loss', 'delta_loss_stderr',
    'loss_recovered_mean', 'dead_share',
)  # fmt: skip


def needs(scale):
  """The suites of all layers."""
  return suites.layers(scale)


def table(results):
  """A row a member, and a row an L0 that was published."""
  rows = [
      row
      for result in results.values()
      for row in result.rows
      if row['site'] in scales.SITES
  ]
  return drawing.select(rows + reference.released(rows), *_COLUMNS)


def figure(rows):
  """Delta loss and FVU against L0, a column a site, a curve a layer."""
  layers = sorted({row['layer'] for row in rows})

  def draw(axis, found, metric):
    for i, layer in enumerate(layers):
      own = drawing.where(found, layer=layer)
      color = panels.shade(i, len(layers))
      points = drawing.over_seeds(
          own, 'l0', metric, by=('sparsity_coefficient',)
      )
      drawing.curve(axis, points, i, f'layer {layer}', color=color)
      panels.mark_released(axis, own, color)

  return panels.by_site(rows, ('delta_loss', 'fvu'), draw)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
