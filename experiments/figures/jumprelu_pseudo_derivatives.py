"""The JumpReLU function, its pseudo-derivatives and the gradient they estimate.

JumpReLU SAEs (arXiv 2407.14435), figures 1, 3 and 4. Pseudo-derivatives replace
the function's derivative with respect to the threshold, which is zero almost
everywhere. The paper claims that their mean over a batch is a kernel density
estimate of the derivative of the expected loss.

The upper panels show the functions and their pseudo-derivatives. The lower
panels are for an SAE of six latents on Gaussian activations. The lower left
panel compares the mean pseudo-gradient with central differences of the loss,
averaged over the same rows (bars: two standard errors). The lower right panel
shows the gradients of single batches (bars: their standard deviation). They are
noisy with a narrow kernel and biased with a wide one, because a wide kernel
smooths the derivative.

  python -m experiments.figures.jumprelu_pseudo_derivatives
"""

import sys

from experiments import threshold_gradients
from experiments.figures import captions, drawing
from experiments.suites import command
from jumprelu.plots import plot_style, sheets

_BATCHES, _BATCH = 512, 1024
_THRESHOLDS = tuple(i / 20 for i in range(1, 15))
_BANDWIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_DRAWN = (0.03, 0.3, 1.0)
# Threshold of the last panel, where the derivative's curvature is largest.
_AT = 0.2
# Threshold and bandwidth of the first two panels.
_THRESHOLD, _BANDWIDTH = 0.5, 0.3

_BARS = (
    f'means over {_BATCHES * _BATCH:,} rows · bars: ± 2 standard errors over'
    ' batches (left), one standard deviation between batches (right)'
)


def needs(scale):
  """Returns no suites, because `table` computes the toy."""
  del scale
  return ()


def record():
  """Returns the columns that name the activations and the SAE."""
  return {
      'model': 'synthetic activations',
      'variant': 'jumprelu',
      'width': threshold_gradients.WIDTH,
      'averaged_rows': _BATCHES * _BATCH,
  }


def table(results):
  """Returns points of the functions, and a row per threshold and bandwidth."""
  del results
  import numpy as np

  z = np.linspace(-0.2, 1.2, 281, dtype=np.float32)
  columns = threshold_gradients.functions(z, _THRESHOLD, _BANDWIDTH)
  rows = [
      {'panel': 'function', **dict(zip(columns, map(float, row), strict=True))}
      for row in zip(*columns.values(), strict=True)
  ]
  drawn = threshold_gradients.draw(_BATCHES, _BATCH)
  exact = threshold_gradients.differences(*drawn, _THRESHOLDS)
  for bandwidth in _BANDWIDTHS:
    estimated = threshold_gradients.gradients(*drawn, _THRESHOLDS, bandwidth)
    rows += [
        {
            'panel': 'gradient',
            'threshold': threshold,
            'bandwidth': bandwidth,
            'difference': float(differences.mean()),
            'difference_stderr': float(differences.std() / _BATCHES**0.5),
            'estimate': float(estimates.mean()),
            'estimate_stderr': float(estimates.std() / _BATCHES**0.5),
            'batch_deviation': float(estimates.std()),
        }
        for threshold, differences, estimates in zip(
            _THRESHOLDS, exact, estimated, strict=True
        )
    ]
  return rows


def figure(rows):
  """Returns the function, the pseudo-derivatives and the resulting gradient."""
  fig, axes = sheets.panels(2, 2, size=(4.2, 3.0))
  function = drawing.where(rows, panel='function')
  z = [row['z'] for row in function]
  lines = (
      ('jumprelu', 'JumpReLU', '-', axes[0, 0]),
      ('step', 'Step', '--', axes[0, 0]),
      ('jumprelu_slope', 'Of the JumpReLU', '-', axes[0, 1]),
      ('step_slope', 'Of the step', '--', axes[0, 1]),
  )
  for i, (name, label, style, axis) in enumerate(lines):
    axis.plot(
        z,
        [row[name] for row in function],
        style,
        color=plot_style.COLOURS[i % 2],
        label=label,
    )
  title = f'Functions: threshold {_THRESHOLD}, bandwidth {_BANDWIDTH}'
  axes[0, 0].set(title=title, xlabel='Pre-activation', ylabel='Value')
  axes[0, 1].set(
      title='Pseudo-derivatives by the threshold',
      xlabel='Pre-activation',
      ylabel='Pseudo-derivative',
  )
  gradient = drawing.where(rows, panel='gradient')
  _by_threshold(axes[1, 0], gradient)
  _by_bandwidth(axes[1, 1], drawing.where(gradient, threshold=_AT))
  for axis in axes.flat:
    drawing.legend(axis)
  captions.write(fig, rows, bars=_BARS)
  return fig


def _by_threshold(axis, rows):
  for i, bandwidth in enumerate(_DRAWN):
    points = drawing.over_seeds(
        drawing.where(rows, bandwidth=bandwidth),
        'threshold',
        'estimate',
        by=('threshold',),
    )
    drawing.curve(axis, points, i, f'Estimate, bandwidth {bandwidth:g}')
  exact = {row['threshold']: row['difference'] for row in rows}
  style = {'color': plot_style.INK, 'label': 'Difference of the loss'}
  axis.plot(list(exact), list(exact.values()), 'x', zorder=9, **style)
  axis.set(
      title='Derivative of the expected loss',
      xlabel='Threshold of all latents',
      ylabel='Derivative',
  )


def _by_bandwidth(axis, rows):
  axis.errorbar(
      [row['bandwidth'] for row in rows],
      [row['estimate'] for row in rows],
      yerr=[row['batch_deviation'] for row in rows],
      label=f'Gradient of {_BATCH} rows: mean, deviation',
      color=plot_style.COLOURS[0],
      marker='o',
      capsize=2,
  )
  style = {'color': plot_style.INK, 'label': 'Difference of the loss'}
  axis.axhline(rows[0]['difference'], linestyle=':', **style)
  plot_style.log_axis(axis, 'x')
  axis.set(
      title=f'One batch, threshold {_AT}',
      xlabel='Bandwidth of the kernel',
      ylabel='Gradient of one batch',
  )


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
