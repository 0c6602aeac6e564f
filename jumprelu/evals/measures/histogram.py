"""Histograms of firing frequencies, and how much the frequent latents are.

Frequent are latents that fire on more than 1 % and on more than 10 % of tokens
(JumpReLU, arXiv 2407.14435, figure 5); Gemma Scope draws the histogram of
log10 of the frequency (arXiv 2408.05147, figure 5). `mass` is their part of all
firings, as SAEBench's `normalized_` numbers are. No text is read: these are
the frequencies of the first pass.
"""

from typing import Any, NamedTuple

import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Num
from jumprelu.evals.measures import context as context_lib

_THRESHOLDS = {'over_1_percent': 0.01, 'over_10_percent': 0.1}
# From 1e-7 to 1 in tenths of a decade.
_TENTHS = np.arange(-70, 1)


class Histogram(NamedTuple):
  """Latents by the tenth of a decade that their firing frequency lies in."""

  latents: Num[np.ndarray, ' bins']
  below: int  # Fire, but on less than 1e-7 of tokens.
  silent: int

  @classmethod
  def from_frequency(
      cls, frequency: Num[np.ndarray, ' latents']
  ) -> 'Histogram':
    """Counts latents; a bin holds its lower edge, the last one both edges."""
    logs = np.log10(frequency[frequency > 0])
    counts, _ = np.histogram(logs, _TENTHS / 10)
    return cls(
        counts, int((logs < _TENTHS[0] / 10).sum()), int((frequency == 0).sum())
    )

  def merge(self, other: 'Histogram') -> 'Histogram':
    """Returns the counts over the latents of both."""
    return metrics.add(self, other)

  def compute(self) -> list[dict[str, Any]]:
    """Returns rows; silent latents, and those below, have no lower edge."""
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
  """Returns the share of latents above each threshold, and of firings."""
  found = {}
  for name, threshold in _THRESHOLDS.items():
    over = frequency > threshold
    found[f'{name}_share'] = over.mean()
    found[f'{name}_mass'] = metrics.ratio(
        frequency[over].sum(), frequency.sum()
    )
  return found


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Counts the latents of all members."""
  frequencies = [np.asarray(f, np.float64) for f in context.firing_frequency]
  table = [
      {'path': name} | row
      for name, frequency in zip(context.names, frequencies, strict=True)
      for row in Histogram.from_frequency(frequency).compute()
  ]
  return context_lib.Measured([shares(f) for f in frequencies], table)
