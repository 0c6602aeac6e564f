"""Shared plot style: colours, markers, titles of sites and tick labels.

matplotlib is imported inside functions, because it is slow to import.
"""

from typing import Any

import numpy as np

from jumprelu import extras

# Okabe and Ito's palette, because its colours remain distinct for people with
# colour blindness. Curves also differ in their markers, for prints in grey.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
MARKERS = ('o', 's', '^', 'D', 'v', 'P')
INK, FAINT = '#222222', '#6b6b6b'
# Half the length of an error bar, in standard errors.
STDERRS = 2

# Title of each site, a key of `lm.SITES`.
SITES = {
    'resid_post': 'Residual stream',
    'mlp_out': 'MLP output',
    'attn_heads': 'Attention heads',
    'transcoder': 'MLP transcoder',
}

_RC: dict[Any, Any] = {
    'font.family': 'sans-serif',
    'font.size': 9.5,
    'axes.edgecolor': FAINT,
    'axes.linewidth': 0.8,
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#e6e6e6',
    'grid.linewidth': 0.7,
    'axes.axisbelow': True,
    'text.color': INK,
    'xtick.color': FAINT,
    'ytick.color': FAINT,
    'xtick.labelcolor': INK,
    'ytick.labelcolor': INK,
}


def context() -> Any:
  """Returns a context manager that applies the style to figures.

  Figures must be both drawn and saved inside it.
  """
  with extras.imports():
    import matplotlib

  return matplotlib.rc_context(_RC)


def mark(index: int) -> dict[str, str]:
  """Returns the colour and marker of curve number `index`, from 0.

  The first 36 pairs differ.
  """
  cycle, index = divmod(index, len(COLOURS))
  return {
      'color': COLOURS[index],
      'marker': MARKERS[(index + cycle) % len(MARKERS)],
  }


def log_axis(axis: Any, which: str) -> None:
  """Makes an axis logarithmic, with a few ticks labelled by plain numbers.

  Args:
    axis: The matplotlib axes.
    which: 'x' or 'y'.
  """
  with extras.imports():
    from matplotlib import ticker

  class Locator(ticker.LogLocator):
    """The locator of two to nine ticks at round values.

    Ticks are placed at 1, 2 and 5 times the powers of ten. If that makes more
    than nine visible ticks, they are placed at the powers of ten only. If
    neither makes two to nine, they are evenly spaced.
    """

    def tick_values(self, vmin: float, vmax: float) -> Any:
      low, high = np.floor(np.log10(vmin)), np.ceil(np.log10(vmax))
      decades = 10 ** np.arange(low, high + 1)
      for subs in ((1, 2, 5), (1,)):
        ticks = np.outer(decades, subs).ravel()
        count = np.sum((ticks >= vmin) & (ticks <= vmax))
        if 2 <= count <= 9:
          return ticks
      return ticker.MaxNLocator(4, steps=(1, 2, 5, 10)).tick_values(vmin, vmax)

  getattr(axis, f'set_{which}scale')('log')
  side = getattr(axis, f'{which}axis')
  side.set_major_locator(Locator())
  side.set_major_formatter(ticker.FuncFormatter(lambda v, _: f'{v:g}'))
  side.set_minor_locator(ticker.NullLocator())


def shade(index: int, count: int) -> Any:
  """Returns a colour for a value of an ordered quantity, dark to light."""
  with extras.imports():
    import matplotlib

  return matplotlib.colormaps['viridis'](0.88 * index / max(count - 1, 1))


def count_axis(axis: Any, which: str) -> None:
  """Labels the ticks of an axis of large counts as 500k or 2M."""
  with extras.imports():
    from matplotlib import ticker

  side = getattr(axis, f'{which}axis')
  side.set_major_locator(ticker.MaxNLocator(5, steps=(1, 2, 5, 10)))
  side.set_major_formatter(ticker.EngFormatter(sep=''))
