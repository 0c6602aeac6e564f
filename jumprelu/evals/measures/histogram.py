"""Histograms of firing frequencies, and the shares of frequent latents.

Latents are frequent if they fire on more than a threshold of 1% or 10% of
tokens (JumpReLU, arXiv 2407.14435, figure 5). Columns that end in `_share` have
their share of all latents, and columns that end in `_mass` their share of all
firings, like SAEBench's `normalized_` metrics. The histogram is over log10 of
the frequency, as in Gemma Scope (arXiv 2408.05147, figure 5). No text is read,
because the frequencies are those of the first pass.
"""

from typing import Any, NamedTuple

import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Num
from jumprelu.evals.measures import context as context_lib

_THRESHOLDS = {'over_1_percent': 0.01, 'over_10_percent': 0.1}
# Bin edges: tenths of log10, from 1e-7 to 1.
_TENTHS = np.arange(-70, 1)


class Histogram(NamedTuple):
  """Numbers of latents by firing frequency, in bins of a tenth of a decade."""

  latents: Num[np.ndarray, ' bins']
  below: int  # Latents that fire, but on less than 1e-7 of tokens.
  silent: int

  @classmethod
  def from_frequency(
      cls, frequency: Num[np.ndarray, ' latents']
  ) -> 'Histogram':
    """Returns the counts.

    A bin includes its lower edge, and the last bin also its upper edge.
    """
    logs = np.log10(frequency[frequency > 0])
    counts, _ = np.histogram(logs, _TENTHS / 10)
    return cls(
        counts, int((logs < _TENTHS[0] / 10).sum()), int((frequency == 0).sum())
    )

  def merge(self, other: 'Histogram') -> 'Histogram':
    """Returns the counts over the latents of both records."""
    return metrics.add(self, other)

  def compute(self) -> list[dict[str, Any]]:
    """Returns a row per bin, after rows for silent and for rarer latents."""
    edges = _TENTHS / 10
    rows = [
        {'log10_low': None, 'log10_high': None, 'latents': self.silent},
        {'log10_low': None, 'log10_high': edges[0], 'latents': self.below},
    ]
    return rows + [
        {'log10_low': low, 'log10_high': high, 'latents': count}
        for low, high, count in zip(
            edges[:-1], edges[1:], self.latents, strict=True
        )
    ]


def shares(frequency: Num[np.ndarray, ' latents']) -> dict[str, Any]:
  """Returns, for each threshold, the shares of latents and of firings."""
  columns = {}
  for name, threshold in _THRESHOLDS.items():
    over = frequency > threshold
    columns[f'{name}_share'] = over.mean()
    columns[f'{name}_mass'] = metrics.ratio(
        frequency[over].sum(), frequency.sum()
    )
  return columns


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Returns the shares of all members, and their histograms as a table."""
  frequencies = [np.asarray(f, np.float64) for f in context.firing_frequency]
  table = [
      {'path': name} | row
      for name, frequency in zip(context.names, frequencies, strict=True)
      for row in Histogram.from_frequency(frequency).compute()
  ]
  return context_lib.Measured([shares(f) for f in frequencies], table)
