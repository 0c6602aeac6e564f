"""Tables of figures, and drawing functions that figures share."""

from collections.abc import Iterable, Mapping, Sequence
import csv
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu.plots import plot_style

Row = dict[str, Any]

VARIANTS = {
    'relu': 'ReLU + L1',
    'gated': 'Gated (RI-L1)',
    'topk': 'TopK',
    'jumprelu': 'JumpReLU',
}
# The variant of rows that hold only the L0 of a published SAE.
RELEASED = 'released'
# Columns of members that were measured on training text, too.
TRAINING_TEXT = ('train_l0', 'train_fvu', 'unique_tokens', 'epochs')
# Metrics between 0 and 1, drawn in percent.
SHARES = frozenset((
    'dead_share', 'over_1_percent_share', 'over_10_percent_share', 'new_share',
    'kept_share', 'split_share', 'matched_share', 'latents',
))  # fmt: skip
LABELS = {
    'l0': 'L0: active latents per token',
    'bandwidth': 'Bandwidth of the kernel',
    'position': 'Position in the document',
    'fvu': 'FVU',
    'delta_loss': 'Delta loss (nats)',
    'loss_recovered': 'Loss recovered',
    'loss_recovered_mean': 'Loss recovered\nfrom mean ablation',
    'gamma': 'Gamma: reconstruction bias',
    'dead_share': 'Dead latents',
    'over_1_percent_share': 'Latents active on\n> 1 % of tokens',
    'over_10_percent_share': 'Latents active on\n> 10 % of tokens',
    'relative_error': 'Squared error / variance',
    'rounding': 'Cost of rounding the SAE (nats)',
    'r_l0': 'r_L0: evenness of active latents',
}


def read_csv(path: pathlib.Path) -> list[Row]:
  """Returns the rows of a CSV file: numbers parsed, empty cells as None."""
  with path.open(encoding='utf-8', newline='') as file:
    return [
        {name: _value(text) for name, text in row.items()}
        for row in csv.DictReader(file)
    ]


def _value(text: str) -> Any:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      continue
  return text or None


class Point(NamedTuple):
  """Means and standard errors of members that differ only in their seed."""

  x: float
  y: float
  x_stderr: float
  y_stderr: float


def over_seeds(
    rows: Iterable[Row], x: str, y: str, *, by: Sequence[str]
) -> list[Point]:
  """Returns averages of rows that agree in the columns `by`, sorted by x.

  The error of y combines the error between seeds with the error of the
  evaluation's text, if rows have one. All seeds share the text, so its error
  does not shrink with more seeds.
  """
  groups: dict[tuple[Any, ...], list[Row]] = {}
  for row in rows:
    if row.get(x) is not None and row.get(y) is not None:
      groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
  points = []
  for group in groups.values():
    xs = np.array([row[x] for row in group], float)
    ys = np.array([row[y] for row in group], float)
    text = np.mean([row.get(f'{y}_stderr') or 0.0 for row in group])
    y_stderr = float(np.hypot(_stderr(ys), text))
    points.append(
        Point(float(xs.mean()), float(ys.mean()), _stderr(xs), y_stderr)
    )
  return sorted(points)


def _stderr(values: np.ndarray) -> float:
  if len(values) < 2:
    return 0.0
  return float(values.std(ddof=1) / np.sqrt(len(values)))


def curve(
    axis: Any,
    points: Sequence[Point],
    index: int,
    label: str,
    *,
    metric: str = '',
    **style: Any,
) -> None:
  """Draws points, connected by a line, with error bars.

  Args:
    axis: The panel.
    points: The points.
    index: The number of the curve, for its colour and marker.
    label: Its name in the legend.
    metric: The column on the y axis. Error bars of shares end at 0 and 1.
    **style: Style changes, as for `Axes.errorbar`.
  """
  if not points:
    return
  x, y, x_stderr, y_stderr = map(np.array, zip(*points, strict=True))
  y_bars = np.tile(plot_style.STDERRS * y_stderr, (2, 1))
  if metric in SHARES:
    y_bars = np.clip(y_bars, 0, np.clip([y, 1 - y], 0, None))
  axis.errorbar(
      x,
      y,
      xerr=plot_style.STDERRS * x_stderr if x_stderr.any() else None,
      yerr=y_bars if y_stderr.any() else None,
      label=label,
      **{
          **plot_style.mark(index),
          'markersize': 4.5,
          'linewidth': 1.4,
          'elinewidth': 0.9,
          'capsize': 2,
          **style,
      },
  )


def nested(index: int, count: int) -> dict[str, Any]:
  """Returns the style of one of `count` curves that may coincide.

  Later curves are thinner and have smaller marks, so that the earlier ones
  remain visible below them.
  """
  above = count - 1 - index
  return {
      'markersize': 4.5 + 1.7 * above,
      'linewidth': 1.4 + 1.2 * above,
      'zorder': 2 + index / count,
  }


def legend(axis: Any, **more: Any) -> None:
  """Draws the legend of a panel."""
  axis.legend(frameon=False, fontsize=8.5, **more)


def of_members(
    results: Mapping[str, Any], *names: str, origin: str = ''
) -> list[Row]:
  """Returns the named columns of the rows of all members of all results.

  If `origin` is set, a column of that name holds the name of the result.
  """
  return [
      {origin: name, **row} if origin else row
      for name, result in results.items()
      for row in select(result.rows, *names)
  ]


def select(rows: Iterable[Mapping[str, Any]], *names: str) -> list[Row]:
  """Returns the named columns of rows, and those of training text if any."""
  return [
      {name: row.get(name) for name in names}
      | {name: row[name] for name in TRAINING_TEXT if name in row}
      for row in rows
  ]


def where(rows: Iterable[Row], **values: Any) -> list[Row]:
  """Returns the rows whose columns have these values."""
  return [
      row
      for row in rows
      if all(row.get(name) == value for name, value in values.items())
  ]


def present(rows: Iterable[Row], column: str, order: Iterable[Any]) -> list:
  """Returns the values of `order` that occur in a column, in that order."""
  values = {row.get(column) for row in rows}
  return [value for value in order if value in values]
