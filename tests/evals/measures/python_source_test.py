"""Properties of source code, compared with labels by hand."""

import pytest

from jumprelu.evals.measures import python_source

SOURCE = '''"""About."""
import os.path  # paths

class Cat(os.Base):
  """A cat.

  Of two lines."""

  def purr(self, x=12):
    "Loud."
    if x > 1.5:
      return ['no', f'so {x!r} {len("q")}']
    """No docstring."""
'''


def spans(name, text=SOURCE):
  """Returns the runs of characters that have a property."""
  marks = python_source.properties(text)
  column = marks[:, python_source.PROPERTIES.index(name)]
  runs, run = [], ''
  for character, marked in zip(text, column, strict=True):
    if marked:
      run += character
    elif run:
      runs, run = [*runs, run], ''
  return [*runs, run] if run else runs


@pytest.mark.parametrize(
    'name, wanted',
    [
        ('docstring', ['"""About."""', '"""A cat.\n\n  Of two lines."""', '"Loud."']),
        ('string', ["'no'", """f'so {x!r} {len("q")}'""", '"""No docstring."""']),
        ('comment', ['# paths']),
        ('keyword', ['import', 'class', 'def', 'if', 'return']),
        ('number', ['12', '1.5']),
        ('attribute', ['path', 'Base']),
        ('defined_name', ['Cat', 'purr']),
        (
            'operator',
            ['.', '(', '.', '):', '(', ',', '=', '):', '>', ':', '[', ',', ']'],
        ),
        (
            'in_brackets',
            ['os.Base)', 'self, x=12)', """'no', f'so {x!r} {len("q")}']"""],
        ),
    ],
)  # fmt: skip
def test_each_property_marks_the_expected_characters(name, wanted):
  assert spans(name) == wanted


def test_blocks_are_nested_from_the_second_level_on():
  (inside,) = spans('nested_block')
  assert inside.strip().startswith('"Loud."')
  assert inside.strip().endswith('"""No docstring."""')


def test_positions_count_characters_and_not_bytes():
  text = 'é = "ü𝔘"  # ß\r\nx = 1\n'
  assert spans('string', text) == ['"ü𝔘"']
  assert spans('number', text) == ['1']
  assert [c.strip() for c in spans('comment', text)] == ['# ß']


@pytest.mark.parametrize('text', ['def f(:\n', 'x = (\n', 'if x:\ny\n'])
def test_invalid_python_is_refused(text):
  with pytest.raises(SyntaxError):
    python_source.properties(text)
