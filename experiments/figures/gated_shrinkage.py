"""Shrinkage of a single feature by the sparsity penalty, against lambda.

Gated SAEs (arXiv 2404.16014), figure 2. Under an L1 penalty, the reconstruction
of a feature of size 1 with the least loss is 1 - lambda / 2, so lambda = 1
halves the feature. The gates of Gated SAEs and the thresholds of JumpReLU SAEs
do not shrink the values that pass them. The figure shows SAEs of one latent,
trained on a feature that is present on a tenth of the rows, in a random
direction with weak noise. Points are means over seeds; bars are two standard
errors.

The closed form includes the decoder's bias: with f the latent, b the bias along
the feature and p the share of rows with the feature,

  p (f + b - 1)^2 + (1 - p) b^2 + lambda p f

is minimal at f + b = 1 - lambda / 2 if lambda < 2 (1 - p), and otherwise at
f = 0 and b = p.

  python -m experiments.figures.gated_shrinkage
"""

import sys

from experiments.figures import captions, drawing, toys
from experiments.suites import command
from jumprelu.plots import plot_style, sheets

_SHARE = 0.1
_NOISE = 0.02
_SIZE = 8
_SEEDS = 5
_LAMBDAS = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_FIELDS = {
    'relu': {},
    'gated': {},
    'jumprelu': {'bandwidth': 0.1, 'initial_threshold': 0.1},
}
_BARS = 'bars: ± 2 standard errors over seeds'
_LABELS = drawing.VARIANTS | {'gated': 'Gated'}


def needs(scale):
  """Returns no suites, because `table` trains the toy."""
  del scale
  return ()


def record():
  """Returns the columns that name model and training."""
  return toys.record(tuple(_FIELDS))


def closed_form(coefficient):
  """Returns the reconstruction of a feature of size 1 under an L1 penalty."""
  return max(1 - coefficient / 2, _SHARE)


def table(results):
  """Returns one row per variant, lambda and seed."""
  del results
  return [
      {
          'variant': variant,
          'sparsity_coefficient': coefficient,
          'seed': seed,
          'reconstruction': float(value),
          'closed_form_l1': closed_form(coefficient),
      }
      for variant, fields in _FIELDS.items()
      for seed, values in enumerate(reconstruct(variant, fields))
      for coefficient, value in zip(_LAMBDAS, values, strict=True)
  ]


def reconstruct(variant, fields):
  """Returns the reconstructions of a feature of size 1, [seeds, lambdas]."""
  import jax

  from jumprelu.ops import unit_norm

  sae = toys.make_sae(variant, size=_SIZE, **fields)
  directions, batches = draw()

  def init(key, direction):
    start = sae.init_params(key, initial_threshold=0.1)
    # A single latent that points away from the feature would never fire on it.
    W_dec = unit_norm.unit(start['W_dec'] + 2 * direction[None])
    return start | {'W_dec': W_dec, 'W_enc': W_dec.T}

  def along(params, direction):
    outputs = sae.decode(params, sae.encode(params, direction[None]))
    return outputs[0] @ direction

  trained = toys.train(
      sae,
      jax.vmap(init)(jax.random.split(jax.random.key(0), _SEEDS), directions),
      (batches, batches),
      coefficients=_LAMBDAS,
  )
  return jax.vmap(jax.vmap(along, (0, None)))(trained, directions)


def draw():
  """Returns directions, [seeds, size], and [seeds, steps, batch, size] rows."""
  import numpy as np

  rng = np.random.default_rng(0)
  directions = rng.normal(size=(_SEEDS, _SIZE))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  training = toys.Training()
  shape = (_SEEDS, training.steps, training.batch, _SIZE)
  present = rng.random(shape[:3]) < _SHARE
  batches = present[..., None] * directions[:, None, None]
  batches += _NOISE * rng.normal(size=shape)
  return directions.astype(np.float32), batches.astype(np.float32)


def figure(rows):
  """Returns reconstruction against lambda per variant, and the closed form."""
  fig, axes = sheets.panels(1, 1, size=(5.0, 3.6))
  axis = axes[0, 0]
  forms = {r['sparsity_coefficient']: r['closed_form_l1'] for r in rows}
  axis.plot(
      list(forms),
      list(forms.values()),
      color=plot_style.INK,
      linestyle='--',
      label='Least L1 loss: 1 - lambda / 2',
      zorder=1,
  )
  for i, variant in enumerate(drawing.VARIANTS):
    points = drawing.over_seeds(
        drawing.where(rows, variant=variant),
        'sparsity_coefficient',
        'reconstruction',
        by=('sparsity_coefficient',),
    )
    # Hollow and larger, so that both marks are visible where two agree.
    hollow = {'markersize': 9, 'markerfacecolor': 'none'}
    style = hollow if variant == 'gated' else {}
    drawing.curve(axis, points, i, _LABELS[variant], linestyle='', **style)
  axis.set(
      xlabel='Sparsity coefficient lambda',
      ylabel='Reconstruction of a feature of size 1',
      ylim=(0, 1.1),
  )
  drawing.legend(axis, loc='lower left')
  captions.write(fig, rows, bars=_BARS)
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
