"""Inference-time optimisation: dictionaries without their encoders.

Gated SAEs (arXiv 2404.16014), figures 10 and 11. The paper replaces the
encoders of Gated and ReLU SAEs by gradient pursuit at a fixed L0, which
separates the gain of the dictionary from the gain of the encoder. The figure
shows SAEs of the residual stream on held-out tokens, once with latents from
their encoders and once with as many latents from pursuit
(`evals/measures/pursuit.py`).

  python -m experiments.figures.gated_ito --scale=nano
"""

import sys

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing
from experiments.suites import command, suites
from jumprelu.plots import plot_style, sheets

_TOKENS = 4096
_COLUMNS = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', 'encoder_fvu', 'delta_loss', 'delta_loss_stderr', 'pursuit_l0',
    'pursuit_fvu', 'pursuit_delta_loss', 'pursuit_delta_loss_stderr',
    'tokens_pursuit',
)  # fmt: skip
# Maps a panel to its columns for the encoder and for pursuit.
_METRICS = {
    'delta_loss': ('delta_loss', 'pursuit_delta_loss'),
    'fvu': ('encoder_fvu', 'pursuit_fvu'),
}


def needs(scale):
  """Returns the residual stream of four variants, measured with pursuit."""
  return tuple(
      suites.Reading(
          'pursuit' if suite.name == 'headline' else f'pursuit_{suite.name}',
          suite,
          {'eval.delta_loss_tokens': _TOKENS},
          measures=('pursuit',),
          sites=('resid_post',),
      )
      for suite in suites.with_baselines(scale)
  )


def table(results):
  """Returns one row per member."""
  return drawing.of_members(results, *_COLUMNS)


def figure(rows):
  """Returns delta loss and FVU against L0, dashed and hollow for pursuit."""
  fig, axes = sheets.panels(1, len(_METRICS), size=(3.8, 3.3))
  for axis, columns in zip(axes[0], _METRICS.values(), strict=True):
    _panel(axis, rows, columns)
    axis.set_xlabel(drawing.LABELS['l0'])
  axes_lib.style_row(axes[0], list(_METRICS))
  sheets.legend_below(fig)
  captions.write(fig, rows, list(_METRICS))
  return fig


def _panel(axis, rows, columns):
  for i, variant in enumerate(drawing.VARIANTS):
    for x, y in zip(('l0', 'pursuit_l0'), columns, strict=True):
      points = drawing.over_seeds(
          drawing.where(rows, variant=variant),
          x,
          y,
          by=('sparsity_coefficient', 'target_l0'),
      )
      hollow = {'linestyle': '--', 'markerfacecolor': 'none'}
      is_encoder = y == columns[0]
      source = 'encoder' if is_encoder else 'gradient pursuit'
      label = f'{drawing.VARIANTS[variant]}, {source}'
      drawing.curve(axis, points, i, label, **({} if is_encoder else hollow))
  plot_style.log_axis(axis, 'x')


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
