"""Histograms of firing frequency of four variants at about one L0.

JumpReLU SAEs (arXiv 2407.14435), appendix (frequency histograms). In the paper
JumpReLU and TopK have some latents at the right end, active on over 10 % of
tokens, where Gated has hardly any; most latents are rare in all of them. For
each variant the sparsity is taken whose L0 is nearest the L0 that all variants
reach best; histograms are means over seeds. Dotted lines: 1 % and 10 %.

  python -m experiments.figures.jumprelu_histograms --scale=nano
"""

import sys

import numpy as np

from experiments.figures import drawing, frequencies
from experiments.suites import command, suites
from jumprelu.release import plot_style

_SITE = 'resid_post'


def needs(scale):
  """The headline suite."""
  return (suites.headline(scale),)


def table(results):
  """A row a bin of a member's histogram."""
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
  """Returns of each variant the sparsity nearest the best common L0.

  That is the L0, of those that some kind of member has, from which no
  variant's nearest member is far: the largest ratio is the smallest.
  """
  kinds = {}
  for row in rows:
    if row['l0']:
      seeds = kinds.setdefault(row['variant'], {})
      seeds.setdefault(_sparsity(row), []).append(np.log(row['l0']))
  means = {
      variant: {key: np.mean(logs) for key, logs in found.items()}
      for variant, found in kinds.items()
  }

  def nearest(variant, log):
    found = means[variant]
    return min(found, key=lambda key: abs(found[key] - log))

  def worst(log):
    return max(abs(means[v][nearest(v, log)] - log) for v in means)

  logs = sorted(log for found in means.values() for log in found.values())
  common = min(logs, key=worst)
  return {variant: nearest(variant, common) for variant in means}


def figure(rows):
  """A panel a variant."""
  variants = drawing.present(rows, 'variant', drawing.VARIANTS)
  fig, axes = drawing.panels(1, len(variants), sharex=True, sharey=True)
  for axis, variant in zip(axes[0], variants, strict=True):
    found = drawing.where(rows, variant=variant)
    number = list(drawing.VARIANTS).index(variant)
    frequencies.steps(axis, found, plot_style.COLOURS[number], '')
    members = [row for row in found if row['log10_low'] is None]
    l0 = np.mean([row['l0'] for row in members])
    axis.set_title(
        f'{drawing.VARIANTS[variant]}\nL0 {l0:.0f},'
        f' {frequencies.silent(found):.1%} silent',
        fontsize=9.5,
    )
  frequencies.finish(axes[0])
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
