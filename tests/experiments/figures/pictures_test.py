"""Every picture: a caption from its table, comparable panels, no share < 0."""

import pathlib

import numpy as np
import pytest

from experiments import all as all_lib
from experiments.figures import drawing
from experiments.suites import records
from jumprelu.plots import plot_style, sheets
from tests.experiments import figure_cases
from tests.experiments import small_results as small

_STORED = pathlib.Path(all_lib.__file__).parent / 'results' / 'nano'
_SHARES = {
    *(drawing.LABELS.get(name, '') for name in drawing.SHARES),
    'Share of latents that fire',
    'Latents per bin of a fifth of a decade',
} - {''}


@pytest.fixture(scope='module')
def stored():
  """Draws a figure from its stored table; pictures are cached by name."""
  cache = {}

  def get(figure):
    name = figure_cases.name(figure)
    if name not in cache:
      rows = drawing.read_csv(_STORED / f'{name}.csv')
      cache[name] = figure.figure(rows)
    return cache[name]

  return get


def _rows_of_panels(fig):
  """Returns rows of (axis, label); a panel may have that of its left one."""
  rows = {}
  for axis in fig.axes:
    row = rows.setdefault(axis.get_subplotspec().rowspan.start, [])
    label = axis.get_ylabel() or (row[-1][1] if row else '')
    row.append((axis, label))
  return list(rows.values())


@figure_cases.trained
def test_a_caption_names_model_layer_sites_tokens_and_seeds(figure, tmp_path):
  results = {need.name: small.make(need) for need in figure.needs(small.SCALE)}
  rows = figure.table(results)
  record = records.of_figure(figure, small.SCALE)
  sheets.write_csv(records.add(rows, record), tmp_path / 'table.csv')
  rows = drawing.read_csv(tmp_path / 'table.csv')
  words = ' '.join(figure.figure(rows).get_suptitle().split())
  assert words.startswith('gemma2_nano')
  assert 'layer 2' in words
  for site in {row['site'] for row in rows}:
    assert plot_style.SITES[site].lower() in words.lower()
  for width in {row['width'] for row in rows}:
    assert f'{width:,}' in words
  assert 'trained on 4,096 tokens of stdlib' in words
  assert 'measured on held-out text of ' in words
  seeds = len({row['seed'] for row in rows})
  assert f'{seeds} seed' in words
  assert 'bars' in words


@figure_cases.every
def test_a_stored_table_has_the_columns_of_its_caption(figure, stored):
  words = ' '.join(stored(figure).get_suptitle().split())
  model, *parts = words.split(' · ')
  assert model.startswith(('gemma2_nano', 'synthetic activations'))
  assert any('latent' in part for part in parts)
  assert any('rows' in part or 'tokens of' in part for part in parts)


@figure_cases.every
def test_panels_of_a_row_are_of_one_kind(figure, stored):
  for row in _rows_of_panels(stored(figure)):
    kinds = {axis.get_yscale().removeprefix('sym') for axis, _ in row}
    assert len(kinds) == 1, [label for _, label in row]


@figure_cases.every
def test_panels_of_one_metric_in_a_row_have_the_same_axis(figure, stored):
  for row in _rows_of_panels(stored(figure)):
    for label in {label for _, label in row}:
      same = [axis for axis, other in row if other == label]
      assert len({(a.get_yscale(), a.get_ylim()) for a in same}) == 1, label


@figure_cases.every
def test_a_logarithmic_axis_is_named_as_such(figure, stored):
  for row in _rows_of_panels(stored(figure)):
    for axis, label in row:
      assert ('log scale' in label) == ('log' in axis.get_yscale()), label
      assert ('linear below' in label) == (axis.get_yscale() == 'symlog')


@figure_cases.every
def test_shares_and_their_bars_are_between_0_and_1(figure, stored):
  for row in _rows_of_panels(stored(figure)):
    for axis, label in row:
      if label not in _SHARES:
        continue
      low, high = axis.get_ylim()
      assert low == 0 and 0.1 <= high < 1.1
      assert axis.yaxis.get_major_formatter()(0.5) == '50 %'
      bars = [
          segment
          for collection in axis.collections
          for segment in collection.get_segments()
      ]
      ends = np.concatenate([[[0.0, 0.0]], *bars])[:, 1]
      assert ends.min() >= 0 and ends.max() <= 1


def test_there_are_pictures_of_shares_and_of_both_logarithmic_scales(stored):
  panels = [
      (axis.get_yscale(), label)
      for figure in all_lib.FIGURES
      for row in _rows_of_panels(stored(figure))
      for axis, label in row
  ]
  assert {scale for scale, _ in panels} == {'linear', 'log', 'symlog'}
  assert {label for _, label in panels} >= _SHARES


@figure_cases.every
def test_every_line_but_those_of_frames_has_a_name(figure, stored):
  """Dotted and dashed lines are in a legend of the figure."""
  fig = stored(figure)
  named = {
      label for axis in fig.axes
      for label in axis.get_legend_handles_labels()[1]
  }  # fmt: skip
  drawn = fig.legends or [a.get_legend() for a in fig.axes if a.get_legend()]
  texts = {text.get_text() for box in drawn for text in box.get_texts()}
  assert named and named <= texts
  assert all(name[:1].isupper() or name[:1] == '$' for name in named)
