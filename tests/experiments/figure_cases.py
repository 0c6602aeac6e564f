"""Parameters of tests over figures."""

import pytest

from experiments import all as all_lib
from tests.experiments import small_results as small


def name(figure):
  """Returns the name of a figure's module."""
  return figure.__name__.rpartition('.')[2]


every = pytest.mark.parametrize('figure', all_lib.FIGURES, ids=name)
# Figures with suites; toys have none.
trained = pytest.mark.parametrize(
    'figure', [f for f in all_lib.FIGURES if f.needs(small.SCALE)], ids=name
)
