"""Tables of results as text."""

import pytest

from jumprelu.evals import table


def test_table_aligns_text_left_and_numbers_right():
  lines = table.format_table(
      ['site', 'l0'], [['resid_post', 31.25], ['mlp', None]]
  )
  assert lines.split('\n') == [
      'site           l0',
      'resid_post  31.25',
      'mlp             -',
  ]


@pytest.mark.parametrize('value', [None, float('nan'), float('inf')])
def test_undefined_numbers_are_shown_as_a_dash(value):
  assert table.format_number(value) == '-'
