"""A feature with interference along its direction: ReLU against JumpReLU.

Gated SAEs (arXiv 2404.16014), figure 15. Along a feature's direction,
activations are a mixture of two modes, in which the feature is absent or
present. A ReLU is continuous, so it can suppress interference only with a steep
slope or by shrinking the feature. A function with a jump can suppress it with
any slope and offset, which can then fit the feature. The figure shows SAEs of
one latent, trained without a penalty to reconstruct the feature from its sum
with noise. The best possible function, for comparison, is the conditional mean
of the feature given the sum.

  python -m experiments.figures.gated_toy_mixture
"""

import sys

from experiments.figures import captions, drawing, mixture, toys
from experiments.suites import command
from jumprelu.plots import plot_style, sheets

_NOISES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
_SHOWN = 0.2  # The noise of the first panel.
_SEEDS = 4
_VARIANTS = {
    'relu': {},
    'jumprelu': {'bandwidth': 0.2, 'initial_threshold': 0.3},
}
_BARS = 'bars: ± 2 standard errors over seeds'
_LABELS = {'relu': 'ReLU', 'jumprelu': 'JumpReLU', 'best': 'Best function'}


def needs(scale):
  """Returns no suites, because `table` trains the toy."""
  del scale
  return ()


def record():
  """Returns the columns that name model and training."""
  return toys.record(tuple(_VARIANTS))


def table(results):
  """Returns the fit at one noise, and errors by noise, variant and seed."""
  del results
  import numpy as np

  noises = np.repeat(_NOISES, _SEEDS)
  functions = {name: fit(name, noises) for name in _VARIANTS}
  grid = np.linspace(-1, 2, 151)
  absent, present, best = mixture.densities(grid, _SHOWN)
  shown = list(noises).index(_SHOWN)
  columns = {'x': grid, 'absent': absent, 'present': present, 'best': best}
  for name, function in functions.items():
    columns[name] = function(np.tile(grid, (len(noises), 1)))[shown]
  names = ('panel', *columns)
  values = zip(*columns.values(), strict=True)
  rows = [
      dict(zip(names, ('fit', *map(float, v)), strict=True)) for v in values
  ]
  x, feature = mixture.draw(np.random.default_rng(1), noises, (50_000,))
  for name, function in functions.items():
    errors = np.square(function(x) - feature).mean(1) / feature.var(1)
    rows += [
        {'panel': 'error', 'variant': name, 'noise': n, 'seed': i % _SEEDS,
         'fvu': float(e)}
        for i, (n, e) in enumerate(zip(noises, errors, strict=True))
    ]  # fmt: skip
  rows += [
      {
          'panel': 'error',
          'variant': 'best',
          'noise': n,
          'fvu': mixture.best_fvu(n),
      }
      for n in _NOISES
  ]
  return rows


def fit(variant, noises):
  """Trains one SAE per noise; returns their function of x, [noises, count]."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  sae = toys.make_sae(variant, pre_encoder_bias=False, **_VARIANTS[variant])
  threshold = _VARIANTS[variant].get('initial_threshold', 0.0)
  start = sae.init_params(jax.random.key(0), initial_threshold=threshold)
  # In one dimension a unit row is 1 or -1. Only 1 fits a positive feature.
  start |= {name: jnp.ones_like(start[name]) for name in ('W_enc', 'W_dec')}
  starts = {k: jnp.stack([v] * len(noises)) for k, v in start.items()}
  training = toys.Training()
  x, feature = mixture.draw(
      np.random.default_rng(0), noises, (training.steps, training.batch, 1)
  )
  trained = toys.train(sae, starts, (x, feature), coefficients=(0.0,))

  def apply(params, x):
    params = {name: value[0] for name, value in params.items()}
    return sae.decode(params, sae.encode(params, x[:, None]))[:, 0]

  return lambda x: np.asarray(jax.vmap(apply)(trained, jnp.float32(x)))


def figure(rows):
  """Returns the mixture with its fits, and the error against the noise."""
  fig, axes = sheets.panels(1, 2, size=(4.2, 3.4))
  left, right = axes[0]
  shown = drawing.where(rows, panel='fit')
  x = [row['x'] for row in shown]
  for name, label in (
      ('absent', 'Density, feature absent'),
      ('present', 'Density, present'),
  ):
    density = [row[name] for row in shown]
    shade = plot_style.FAINT if name == 'absent' else plot_style.COLOURS[4]
    left.fill_between(x, density, color=shade, alpha=0.3, lw=0, label=label)
  colours = (*plot_style.COLOURS[:2], plot_style.INK)
  for name, colour in zip(_LABELS, colours, strict=True):
    style = {'color': colour, 'linestyle': ':' if name == 'best' else '-'}
    left.plot(x, [row[name] for row in shown], label=_LABELS[name], **style)
    points = drawing.over_seeds(
        drawing.where(rows, panel='error', variant=name),
        'noise',
        'fvu',
        by=('noise',),
    )
    index = list(_LABELS).index(name)
    drawing.curve(right, points, index, _LABELS[name], **style)
  left.set(
      xlabel='Activation along the direction',
      ylabel='Output; density',
      title=f'Noise {_SHOWN}',
      ylim=(-0.3, 1.8),
  )
  right.set(xlabel='Noise', ylabel='FVU of the feature', ylim=(0, None))
  drawing.legend(left, loc='upper left')
  drawing.legend(right)
  captions.write(fig, rows, bars=_BARS)
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
