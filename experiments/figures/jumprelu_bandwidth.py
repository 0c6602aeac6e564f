"""The bandwidth of the kernel: what it does to L0 and to fidelity.

JumpReLU SAEs (arXiv 2407.14435), and Gemma Scope (arXiv 2408.05147), footnote
5. In the papers a bandwidth that is too small fails to make an SAE sparse:
few pre-activations lie within the kernel, and what moves the threshold is
mostly noise. One that is too large gives sparse SAEs of lower fidelity, as its
gradients are biased. Both train with 0.001. Bars are two standard errors of
the evaluation's text.

  python -m experiments.figures.jumprelu_bandwidth --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.suites import command, suites
from jumprelu.release import plot_style

_COLUMNS = (
    'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu',
    'delta_loss', 'delta_loss_stderr', 'dead_share',
)  # fmt: skip


def needs(scale):
  """A suite a bandwidth; the usual one is shared."""
  return suites.bandwidths(scale)


def table(results):
  """A row a member."""
  rows = drawing.of_members(results, *_COLUMNS, origin='bandwidth')
  for row in rows:
    row['bandwidth'] = float(row['bandwidth'].removeprefix(suites.BANDWIDTH))
  return rows


def figure(rows):
  """L0 and FVU against bandwidth, and FVU and delta loss against L0."""
  fig, axes = drawing.panels(2, 2, size=(3.6, 3))
  for axis, metric in zip(axes[0], ('l0', 'fvu'), strict=True):
    _curves(axis, rows, 'bandwidth', metric, along='sparsity_coefficient')
  for axis, metric in zip(axes[1], ('fvu', 'delta_loss'), strict=True):
    _curves(axis, rows, 'l0', metric, along='bandwidth')
  for i, words in enumerate(('$\\lambda$ = ', 'bandwidth ')):
    for axis in axes[i]:
      for line in axis.containers:
        line.set_label(words + line.get_label())
    drawing.legend(axes[i, 0])
  return fig


def _curves(axis, rows, x, metric, *, along):
  """One metric against `x`, a curve for each value of the column `along`."""
  values = sorted({row[along] for row in rows})
  other = 'bandwidth' if x == 'bandwidth' else 'sparsity_coefficient'
  for i, value in enumerate(values):
    points = drawing.over_seeds(
        drawing.where(rows, **{along: value}), x, metric, by=(other,)
    )
    color = panels.shade(i, len(values))
    drawing.curve(axis, points, i, f'{value:g}', color=color)
  plot_style.log_axis(axis, 'x')
  panels.log_y(axis, rows, metric)
  axis.set_xlabel(drawing.LABELS[x])
  axis.set_ylabel(drawing.LABELS[metric])


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
