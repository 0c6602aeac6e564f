"""Fidelity in bfloat16 and in float32.

Gemma Scope (arXiv 2408.05147), figure 10. In the paper SAEs and the language
model in bfloat16 do not differ visibly from those in float32. The lower row
shows the cost of rounding only the SAE. This difference of two losses on the
same text is far more precise than either loss. Bars are two standard errors.
Matrix products accumulate in float32 in all cases.

  python -m experiments.figures.scope_precision --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.suites import command, suites
from jumprelu.plots import plot_style

_COLUMNS = (
    'layer', 'site', 'width', 'sparsity_coefficient', 'seed', 'lm_dtype', 'l0',
)  # fmt: skip
_BARS = (
    'bars: ± 2 standard errors over sequences of the text (cost of rounding);'
    ' no bars: delta loss'
)
_LABELS = {
    ('float32', 'float32'): 'Both in float32',
    ('float32', 'bfloat16'): 'SAE in bfloat16',
    ('bfloat16', 'float32'): 'Language model in bfloat16',
    ('bfloat16', 'bfloat16'): 'Both in bfloat16',
}


def needs(scale):
  """Returns the middle layer's suite and a reading in the other precision."""
  suite = suites.layer(scale, scale.layer)
  # The dtype that `lm_dtype=auto` does not choose on the scale's hardware.
  other = 'float32' if scale.topology else 'bfloat16'
  reading = suites.Reading(
      f'{suite.name}_{other}', suite, {'lm_dtype': other}, ('bfloat16',)
  )
  return suite, reading


def table(results):
  """Returns one row per member, dtype of the model and dtype of the SAE."""
  rows = []
  for result in results.values():
    for row in result.rows:
      identity = {name: row[name] for name in _COLUMNS}
      rows += [
          identity
          | {
              'sae_dtype': 'float32',
              'delta_loss': row['delta_loss'],
              'delta_loss_stderr': row['delta_loss_stderr'],
          },
          identity
          | {
              'sae_dtype': 'bfloat16',
              'delta_loss': row['delta_loss_bfloat16'],
              'delta_loss_stderr': row['delta_loss_stderr'],
              'rounding': row['bfloat16_cost'],
              'rounding_stderr': row['bfloat16_cost_stderr'],
          },
      ]
  return rows


def figure(rows):
  """Returns delta loss and the cost of rounding, one column per site."""

  def draw(axis, site_rows, metric):
    for i, ((lm_dtype, sae_dtype), label) in enumerate(_LABELS.items()):
      points = drawing.over_seeds(
          drawing.where(site_rows, lm_dtype=lm_dtype, sae_dtype=sae_dtype),
          'l0',
          metric,
          by=('sparsity_coefficient',),
      )
      if metric == 'delta_loss':
        # The error of the text is common to the curves, and would hide them.
        points = [point._replace(y_stderr=0.0) for point in points]
      style = drawing.nested(i, len(_LABELS))
      drawing.curve(axis, points, i, label, **style)
    if metric == 'rounding':
      axis.axhline(0, color=plot_style.FAINT, linewidth=0.8, label='No cost')

  return panels.by_site(rows, ('delta_loss', 'rounding'), draw, bars=_BARS)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
