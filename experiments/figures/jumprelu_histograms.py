"""Histograms of firing frequency of four variants at about the same L0.

JumpReLU SAEs (arXiv 2407.14435), appendix (frequency histograms). In the paper
JumpReLU and TopK have some latents that are active on over 10 % of tokens, and
Gated has hardly any. Most latents of all variants are rarely active. Each
variant is shown at the sparsity whose L0 is nearest to an L0 that all variants
almost reach. Histograms are means over seeds. Dotted lines mark 1 % and 10 % of
tokens.

  python -m experiments.figures.jumprelu_histograms --scale=nano
"""

import sys

import numpy as np

from experiments.figures import captions, drawing, frequencies
from experiments.suites import command, suites
from jumprelu.plots import plot_style, sheets

_SITE = 'resid_post'


def needs(scale):
  """Returns the headline suite."""
  return (suites.headline(scale),)


def table(results):
  """Returns one row per bin of a member's histogram."""
  (result,) = results.values()
  chosen = nearest_members(drawing.where(result.rows, site=_SITE))
  return frequencies.table(
      result,
      lambda row: row['site'] == _SITE
      and chosen[row['variant']] == _sparsity(row),
  )


def _sparsity(row):
  return row['sparsity_coefficient'], row['target_l0']


def nearest_members(rows):
  """Returns each variant's sparsity whose L0 is nearest to a common L0.

  L0s are geometric means over seeds, one per variant and sparsity. The common
  L0 is one of them: the one whose ratio to the nearest L0 of the worst variant
  is closest to 1.
  """
  kinds = {}
  for row in rows:
    if row['l0']:
      seeds = kinds.setdefault(row['variant'], {})
      seeds.setdefault(_sparsity(row), []).append(np.log(row['l0']))
  means = {
      variant: {key: np.mean(logs) for key, logs in seeds.items()}
      for variant, seeds in kinds.items()
  }

  def nearest(variant, log):
    by_sparsity = means[variant]
    return min(by_sparsity, key=lambda key: abs(by_sparsity[key] - log))

  def worst(log):
    return max(abs(means[v][nearest(v, log)] - log) for v in means)

  logs = sorted(log for logs in means.values() for log in logs.values())
  common = min(logs, key=worst)
  return {variant: nearest(variant, common) for variant in means}


def figure(rows):
  """Returns one panel per variant."""
  variants = drawing.present(rows, 'variant', drawing.VARIANTS)
  fig, axes = sheets.panels(1, len(variants), sharex=True, sharey=True)
  for axis, variant in zip(axes[0], variants, strict=True):
    selected = drawing.where(rows, variant=variant)
    number = list(drawing.VARIANTS).index(variant)
    frequencies.steps(axis, selected, plot_style.COLOURS[number], '')
    members = [row for row in selected if row['log10_low'] is None]
    l0 = np.mean([row['l0'] for row in members])
    axis.set_title(
        f'{drawing.VARIANTS[variant]}\nL0 {l0:.0f},'
        f' {_percent(frequencies.silent(selected))} silent',
        fontsize=9.5,
    )
  frequencies.finish(axes[0], rows)
  sheets.legend_below(fig)
  captions.write(fig, rows, bars='means over seeds, no bars')
  return fig


def _percent(share):
  return f'{100 * share:.1f} % of latents' if share else 'no latent'


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
