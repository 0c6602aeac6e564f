"""Every figure: shared suites, a table that suffices for it, and a picture."""

import pathlib
import re

import pytest

from experiments import all as all_lib
from experiments.figures import drawing
from experiments.suites import scales
from jumprelu.plots import sheets
from tests.experiments import figure_cases
from tests.experiments import small_results as small

_HERE = pathlib.Path(all_lib.__file__).parent


@pytest.fixture(scope='module')
def obtain():
  """Makes the results that a figure needs; results are cached by name."""
  cache = {}

  def get(figure):
    needs = figure.needs(small.SCALE)
    for need in needs:
      if need.name not in cache:
        cache[need.name] = small.make(need)
    return {need.name: cache[need.name] for need in needs}

  return get


@figure_cases.trained
def test_a_picture_is_drawn_from_the_stored_table(figure, obtain, tmp_path):
  path = tmp_path / 'table.csv'
  sheets.write_csv(figure.table(obtain(figure)), path)
  fig = figure.figure(drawing.read_csv(path))
  assert fig.axes
  for axis in fig.axes:
    assert axis.has_data(), axis.get_title()
    place = axis.get_subplotspec()
    lowest = place.rowspan.stop == place.get_gridspec().nrows
    assert axis.get_xlabel() or not lowest
  assert fig.axes[0].get_ylabel()


@pytest.mark.parametrize('scale', scales.SCALES.values(), ids=lambda s: s.name)
def test_suites_of_one_name_are_one_suite(scale):
  by_name = {}
  for figure in all_lib.FIGURES:
    for need in figure.needs(scale):
      assert by_name.setdefault(need.name, need) == need


@figure_cases.every
def test_a_figures_docstring_names_the_paper_and_the_command(figure):
  text = figure.__doc__
  assert re.search(r'arXiv \d{4}\.\d{5}', text)
  assert re.search(
      rf'python -m experiments\.figures\.{figure_cases.name(figure)}\s', text
  )


@figure_cases.every
def test_the_list_of_figures_names_the_figure(figure):
  text = (_HERE / 'README.md').read_text('utf-8')
  assert f'`{figure_cases.name(figure)}`' in text


def test_every_file_of_a_figure_is_in_the_list_of_all():
  papers = ('jumprelu_*.py', 'scope_*.py', 'gated_*.py')
  files = {
      path.stem for glob in papers for path in (_HERE / 'figures').glob(glob)
  }
  assert files == {figure_cases.name(figure) for figure in all_lib.FIGURES}
