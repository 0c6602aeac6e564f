"""Histograms of firing frequencies: their tables and panels."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from experiments.figures import axes as axes_lib
from experiments.figures import drawing
from experiments.suites import results
from jumprelu.evals import evaluate
from jumprelu.plots import plot_style

_IDENTITY = (
    'site', 'variant', 'width', 'sparsity_coefficient', 'target_l0', 'seed',
    'l0', 'dead_share', 'tokens_evaluated',
)  # fmt: skip
# Stored bins that are merged into a drawn bin, because a stored bin, a tenth of
# a decade, holds few latents.
_MERGED = 2
# Share of the rarest latents, which the axis of frequencies omits.
_RARE = 0.01


def table(
    result: evaluate.Evaluation, is_selected: Callable[[drawing.Row], bool]
) -> list[drawing.Row]:
  """Returns the histograms of the selected members of a result.

  Args:
    result: The evaluation with its table `histogram`.
    is_selected: Whether a member's histogram is included, from its row.

  Returns:
    One row per member and bin, without empty bins: the bin's edges `log10_low`
    and `log10_high`, and `share`, the share of the member's latents in the bin.
    Each member also has a row without edges, for latents below all bins,
    including silent ones.
  """
  rows = []
  for name, member in results.by_path(result).items():
    if not is_selected(member):
      continue
    identity = {key: member.get(key) for key in _IDENTITY}
    bins = drawing.where(result.tables['histogram'], path=name)
    inside = [row for row in bins if row['log10_low'] is not None]
    below = sum(row['latents'] for row in bins if row['log10_low'] is None)
    merged = [(None, None, below)]
    for i in range(0, len(inside), _MERGED):
      part = inside[i : i + _MERGED]
      merged.append(
          (
              part[0]['log10_low'],
              part[-1]['log10_high'],
              sum(row['latents'] for row in part),
          )
      )
    rows += [
        identity
        | {
            'log10_low': low,
            'log10_high': high,
            'share': count / member['width'],
        }
        for low, high, count in merged
        if count or low is None
    ]
  return rows


def silent(rows: Iterable[drawing.Row]) -> float:
  """Returns the share of latents below all bins, averaged over members."""
  return float(np.mean([r['share'] for r in rows if r['log10_low'] is None]))


def steps(
    axis: Any, rows: Sequence[drawing.Row], color: Any, label: str
) -> None:
  """Draws the histogram of one kind of member, averaged over its seeds.

  Shares are drawn as heights, because bins have equal widths. Bins without a
  row are empty.
  """
  members = sum(row['log10_low'] is None for row in rows)
  inside = [row for row in rows if row['log10_low'] is not None]
  if not inside:
    return
  step = inside[0]['log10_high'] - inside[0]['log10_low']
  lowest = min(row['log10_low'] for row in inside)
  places = [round((row['log10_low'] - lowest) / step) for row in inside]
  heights = np.bincount(places, [row['share'] for row in inside]) / members
  axis.stairs(
      heights,
      lowest + step * np.arange(len(heights) + 1),
      color=color,
      label=label,
      linewidth=1.4,
  )


def finish(axes: Sequence[Any], rows: Sequence[drawing.Row]) -> None:
  """Marks 1 % and 10 % of tokens and labels the axes of drawn panels.

  The axis of frequencies starts where the rarest hundredth of the drawn latents
  ends, and names their share.
  """
  bins = sorted(
      (row['log10_low'], row['share'])
      for row in rows
      if row['log10_low'] is not None
  )
  lows, shares = np.array(bins).T
  before = np.cumsum(shares) - shares
  first = float(lows[before <= _RARE * shares.sum()].max())
  rare = shares[lows < first].sum() / shares.sum()
  for axis in axes:
    for i, log10 in enumerate((-2, -1)):
      axis.axvline(
          log10,
          color=plot_style.FAINT,
          linewidth=0.8,
          linestyle=':',
          label='' if i else 'Active on 1 % and on 10 % of tokens',
      )
    ticks = range(int(np.ceil(first)), 1)
    axis.set_xticks(ticks, [f'{100 * 10.0**tick:g} %' for tick in ticks])
    axis.set_xlim(first, 0)
    axis.set_xlabel(
        'Tokens on which a latent is active\n'
        f'(log scale; {100 * rare:.1f} % of latents are rarer)'
    )
  axes_lib.style_row(
      axes, ('latents',), labels=('Latents per bin of a fifth of a decade',)
  )
