"""Effect of the kernel's bandwidth on L0 and fidelity.

JumpReLU SAEs (arXiv 2407.14435), and Gemma Scope (arXiv 2408.05147), footnote
5. In the papers a bandwidth that is too small fails to make an SAE sparse,
because few pre-activations fall within the kernel and the threshold's gradient
is mostly noise. A bandwidth that is too large results in sparse SAEs of lower
fidelity, because its gradients are biased. Both papers use 0.001. Bars are two
standard errors of the evaluation's text.

  python -m experiments.figures.jumprelu_bandwidth --scale=nano
"""

import sys

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing
from experiments.suites import command, suites
from jumprelu.plots import plot_style, sheets

_COLUMNS = (
    'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu',
    'delta_loss', 'delta_loss_stderr', 'dead_share',
)  # fmt: skip


def needs(scale):
  """Returns one suite per bandwidth; other figures share the default one."""
  return suites.bandwidths(scale)


def table(results):
  """Returns one row per member."""
  rows = drawing.of_members(results, *_COLUMNS, origin='bandwidth')
  for row in rows:
    row['bandwidth'] = float(row['bandwidth'].removeprefix(suites.BANDWIDTH))
  return rows


def figure(rows):
  """Returns L0 and FVU against bandwidth, FVU and delta loss against L0."""
  fig, axes = sheets.panels(2, 2, size=(3.6, 3.0))
  for axis, metric in zip(axes[0], ('l0', 'fvu'), strict=True):
    _curves(axis, rows, 'bandwidth', metric, along='sparsity_coefficient')
  for axis, metric in zip(axes[1], ('fvu', 'delta_loss'), strict=True):
    _curves(axis, rows, 'l0', metric, along='bandwidth')
  axes_lib.style_row(axes[0], ('l0', 'fvu'))
  axes_lib.style_row(axes[1], ('fvu', 'delta_loss'))
  for i, words in enumerate(('$\\lambda$ = ', 'Bandwidth ')):
    for axis in axes[i]:
      for line in axis.containers:
        line.set_label(words + line.get_label())
    drawing.legend(axes[i, 0])
  captions.write(fig, rows, ('l0', 'fvu', 'delta_loss'))
  return fig


def _curves(axis, rows, x, metric, *, along):
  """Draws a metric against `x`, one curve per value of the column `along`."""
  values = sorted({row[along] for row in rows})
  other = 'bandwidth' if x == 'bandwidth' else 'sparsity_coefficient'
  for i, value in enumerate(values):
    points = drawing.over_seeds(
        drawing.where(rows, **{along: value}), x, metric, by=(other,)
    )
    color = plot_style.shade(i, len(values))
    drawing.curve(axis, points, i, f'{value:g}', color=color)
  plot_style.log_axis(axis, 'x')
  axis.set_xlabel(drawing.LABELS[x])


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
