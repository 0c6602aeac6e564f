"""Reconstruction error and delta loss by position in the document.

Gemma Scope (arXiv 2408.05147), figures 3 and 15. In the paper the error starts
near 0 and rises within the first tokens. At the attention heads it is constant
from about position 100, at the MLP it falls slowly from a peak near 10, and in
the residual stream it continues to rise slowly. Delta loss is noisy and
somewhat lower at the first tokens. Squared errors are divided by the variance
over all positions, so that their average is the FVU.

Positions are averaged in logarithmic bins, weighted by tokens. Bars are two
standard errors that treat the tokens of a bin as independent. The true errors
are larger, because the tokens of a document share a topic.

  python -m experiments.figures.scope_positions --scale=nano
"""

import sys

import numpy as np

from experiments.figures import drawing, panels
from experiments.suites import command, suites
from experiments.suites import results as results_lib
from jumprelu.plots import plot_style

_METRICS = ('relative_error', 'delta_loss')
_BARS = 'bars: ± 2 standard errors over tokens'
_IDENTITY = ('layer', 'site', 'width', 'sparsity_coefficient', 'seed')
# Bins per doubling of the position. The first positions have a bin each.
_PER_DOUBLING = 2


def needs(scale):
  """Returns the suite of the middle layer."""
  return (suites.layer(scale, scale.layer),)


def table(results):
  """Returns one row per member and bin of positions."""
  (result,) = results.values()
  rows = []
  for name, member in results_lib.by_path(result).items():
    identity = {key: member[key] for key in _IDENTITY} | {
        'member_l0': member['l0']
    }
    profile = drawing.where(result.tables['positions'], path=name)
    rows += [identity | row for row in binned(profile)]
  return rows


def binned(profile):
  """Returns a member's profile averaged over bins, weighted by tokens."""
  tokens = _column(profile, 'tokens')
  # The denominator of FVU: a position's variance, recovered from the ratio.
  spread = _column(profile, 'squared_error') / _column(profile, 'fvu')
  variance = np.nansum(tokens * spread) / tokens[np.isfinite(spread)].sum()
  position = _column(profile, 'position')
  bins = np.floor(_PER_DOUBLING * np.log2(position)).astype(int)
  rows = []
  for number in np.unique(bins):
    part = [profile[i] for i in np.flatnonzero(bins == number)]
    error, error_stderr = _mean(part, 'squared_error', 'tokens')
    delta, delta_stderr = _mean(part, 'delta_loss', 'tokens_delta_loss')
    count = _column(part, 'tokens')
    rows.append(
        {
            'position': float(
                np.exp(
                    np.average(np.log(position[bins == number]), weights=count)
                )
            ),
            'positions': len(part),
            'tokens': int(count.sum()),
            'l0': float(np.average(_column(part, 'l0'), weights=count)),
            'relative_error': error / variance,
            'relative_error_stderr': error_stderr and error_stderr / variance,
            'delta_loss': delta,
            'delta_loss_stderr': delta_stderr,
        }
    )
  return rows


def _column(rows, name):
  return np.array([np.nan if r[name] is None else r[name] for r in rows], float)


def _mean(rows, name, weight):
  """Returns the mean over all tokens and its standard error, None if unknown.

  The error is pooled from the errors at single positions, because a trend
  within a bin is not noise. A position whose tokens are all of one document has
  no error.
  """
  counts, values = _column(rows, weight), _column(rows, name)
  total = counts.sum()
  if not total:
    return None, None
  mean = float(np.average(values[counts > 0], weights=counts[counts > 0]))
  variances = counts * np.square(_column(rows, f'{name}_stderr'))
  several = np.isfinite(variances)
  if not several.any():
    return mean, None
  pooled = np.average(variances[several], weights=counts[several] - 1)
  return mean, float(np.sqrt(pooled / total))


def figure(rows):
  """Returns both metrics by position, one column per site."""
  values = sorted({row['sparsity_coefficient'] for row in rows})

  def draw(axis, site_rows, metric):
    for i, value in enumerate(values):
      points = drawing.over_seeds(
          drawing.where(site_rows, sparsity_coefficient=value),
          'position',
          metric,
          by=('position',),
      )
      drawing.curve(
          axis, points, i, f'$\\lambda$ = {value:g}',
          color=plot_style.shade(i, len(values)),
      )  # fmt: skip

  return panels.by_site(rows, _METRICS, draw, x='position', bars=_BARS)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
