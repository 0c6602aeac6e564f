"""Feature splitting in wider SAEs, and latents matched across seeds.

Gemma Scope (arXiv 2408.05147) trains a series of widths at equal coefficients
for the study of feature splitting, but has no figure of it. Each latent of a
wide SAE is assigned to the nearest latent of the narrowest SAE, by the cosine
of their decoder rows. A latent of the wide SAE is new if this cosine is at most
0.7. A latent of the narrowest SAE is kept if the cosine of some latent of the
wide SAE with it is above 0.7, and has split if several latents that are not new
are assigned to it.

Earlier work on splitting suggests that wider SAEs have more new and more split
latents, and fewer latents that match a latent of another seed. Points are means
over pairs of seeds at one coefficient. Bars are two standard errors; they are
too short, because pairs share members.

  python -m experiments.figures.scope_splitting --scale=nano
"""

import sys

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing
from experiments.suites import command, suites
from experiments.suites import results as results_lib
from jumprelu.plots import plot_style, sheets

_BARS = 'bars: ± 2 standard errors over pairs of seeds'
_LABELS = {
    'new_share': 'New in the wider SAE',
    'kept_share': 'Latents of the narrowest SAE kept',
    'split_share': 'Latents of the narrowest SAE split',
    'matched_share': 'Latents matched in another seed',
}


def needs(scale):
  """Returns the suite of growing widths."""
  return (suites.ladder(scale),)


def table(results):
  """Returns one row per pair of widths or seeds at one coefficient."""
  (result,) = results.values()
  members = results_lib.by_path(result)
  rows = []
  for pair in result.tables['splitting']:
    narrow, wide = members[pair['narrow_path']], members[pair['wide_path']]
    if narrow['sparsity_coefficient'] == wide['sparsity_coefficient']:
      rows.append(_pair(narrow, wide) | _numbers(pair))
  # The table is absent if no members differ only in their seed.
  for pair in result.tables.get('stability', ()):
    first, second = members[pair['path']], members[pair['other_path']]
    rows.append(_pair(first, second) | _numbers(pair))
  return rows


def _pair(first, second):
  return {
      'kind': 'widths' if first['width'] != second['width'] else 'seeds',
      'sparsity_coefficient': first['sparsity_coefficient'],
      'from_width': first['width'],
      'width': second['width'],
      'from_seed': first['seed'],
      'seed': second['seed'],
  }


def _numbers(pair):
  return {
      name: value
      for name, value in pair.items()
      if not name.endswith(('path', '_width'))
  }


def figure(rows):
  """Returns shares against width, one curve per coefficient.

  The share of latents matched in another seed needs several seeds.
  """
  values = sorted({row['sparsity_coefficient'] for row in rows})
  widths = sorted({row['width'] for row in rows})
  narrowest = min(row['from_width'] for row in rows)
  has_seeds = bool(drawing.where(rows, kind='seeds'))
  labels = {
      metric: label
      for metric, label in _LABELS.items()
      if has_seeds or metric != 'matched_share'
  }
  fig, axes = sheets.panels(
      1, len(labels), size=(2.9, 3.0), sharex=True, sharey=True
  )
  for axis, (metric, label) in zip(axes[0], labels.items(), strict=True):
    pairs = drawing.where(rows, kind='seeds')
    if metric != 'matched_share':
      pairs = drawing.where(rows, kind='widths', from_width=narrowest)
    for i, value in enumerate(values):
      points = drawing.over_seeds(
          drawing.where(pairs, sparsity_coefficient=value),
          'width',
          metric,
          by=('width',),
      )
      color = plot_style.shade(i, len(values))
      style = drawing.nested(i, len(values)) | {'color': color}
      name = f'$\\lambda$ = {value:g}'
      drawing.curve(axis, points, i, name, metric=metric, **style)
    axis.set_xscale('log', base=2)
    axis.set_xticks(widths, [f'{width:,}' for width in widths])
    axis.set_title(label, fontsize=9.5)
    axis.set_xlabel('Width')
  axes_lib.style_row(
      axes[0], ('matched_share',), labels=('Share of latents that fire',)
  )
  sheets.legend_below(fig)
  captions.write(fig, rows, bars=_BARS if has_seeds else 'bars: none')
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
