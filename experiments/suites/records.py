"""Columns that every table of a figure has: what its SAEs were trained on.

They are taken from the configs of the suites that the figure is drawn from. A
suite's results are valid for its config only, so the columns are true of them.
"""

from collections.abc import Sequence
from typing import Any

from experiments.figures import drawing
from experiments.nano import made
from experiments.suites import scales, suites


def of_need(need: suites.Suite | suites.Reading) -> drawing.Row:
  """Returns the values of a suite or reading, by column."""
  suite, changes = need, {}
  if isinstance(need, suites.Reading):
    suite, changes = need.suite, need.changes
  config = made.resolve(suite.config)
  return {
      'model': _name(changes.get('model', suite.config.get('model'))),
      'layer': config.layer,
      'site': ' + '.join(getattr(need, 'sites', ()) or config.sites),
      'variant': ' + '.join(config.variants),
      'width': ' + '.join(map(str, config.widths)),
      'training_tokens': config.tokens,
      'training_text': _name(suite.config.get('data', config.data)),
      'text': _name(changes.get('data', suite.config.get('data', config.data))),
  }


def _name(value: Any) -> str:
  return value.name if isinstance(value, made.Made) else str(value)


def of_figure(figure: Any, scale: scales.Scale) -> drawing.Row:
  """Returns the columns of a figure; values that differ are joined by ' + '.

  Figures without suites may define `record()`, which returns their columns.
  """
  needs = figure.needs(scale)
  if not needs:
    return figure.record()
  rows = [of_need(need) for need in needs]
  return {column: _joined([row[column] for row in rows]) for column in rows[0]}


def _joined(values: Sequence[Any]) -> Any:
  values = list(dict.fromkeys(values))
  return values[0] if len(values) == 1 else ' + '.join(map(str, values))


def add(rows: Sequence[drawing.Row], record: drawing.Row) -> list[drawing.Row]:
  """Returns rows with the columns of a record that none of them has."""
  names = {name for row in rows for name in row}
  new = {name: record[name] for name in record if name not in names}
  return [row | new for row in rows]
